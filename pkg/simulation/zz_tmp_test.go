package simulation

import (
	"context"
	"testing"

	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes/fake"

	"github.com/ai-storage/orchestrator/pkg/apis/config/load"
)

func TestTmp(t *testing.T) {
	c, _ := load.File("../../config/scheduler-configuration.yaml")
	client := fake.NewClientset()
	f := informers.NewSharedInformerFactory(client, 0)
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	if _, err := New(ctx, c.Scheduler, client, f, nil); err != nil {
		t.Fatal(err)
	}
	f.Start(ctx.Done())
	for k := range f.WaitForCacheSync(ctx.Done()) {
		t.Log(k)
	}
}
