package load

import (
	"os"
	"reflect"
	"testing"
	"time"

	"github.com/ai-storage/orchestrator/pkg/apis/config"
	"github.com/ai-storage/orchestrator/pkg/apis/config/validation"
)

// Whatever the file says, the loader answers with an error or with arguments
// that hold what validation promises.
func FuzzBytes(f *testing.F) {
	for _, pattern := range []string{"*.good.yaml", "*.bad.yaml"} {
		for _, path := range files(f, pattern) {
			data, err := os.ReadFile(path)
			if err != nil {
				f.Fatal(err)
			}
			f.Add(data)
		}
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		configuration, err := Bytes(data)
		if (configuration == nil) == (err == nil) {
			t.Fatalf("both or neither: %v, %v", configuration, err)
		}
		if err != nil {
			return
		}
		args := configuration.Rebalance
		if errs := validation.ValidateRebalanceArgs(nil, args); len(errs) > 0 {
			t.Errorf("arguments that are not valid: %v", errs)
		}
		checkBounds(t, args)
		again, err := Bytes(data)
		if err != nil || !reflect.DeepEqual(args, again.Rebalance) {
			t.Errorf("read twice, the arguments differ: %+v, %+v, %v", args, again.Rebalance, err)
		}
	})
}

// checkBounds repeats what the loop divides by, indexes with or multiplies.
func checkBounds(t *testing.T, args *config.RebalanceArgs) {
	interval, window := args.Interval.Duration, args.Signals.Window.Duration
	switch {
	case interval <= 0 || window <= 0 || args.Signals.HalfLife.Duration <= 0:
		t.Errorf("times that do not pass: %+v", args)
	case window/interval < time.Duration(args.AbnormalCycles) || args.AbnormalCycles < 1:
		t.Errorf("a window of %s cannot hold %d measurements %s apart", window, args.AbnormalCycles, interval)
	case args.Signals.Percentile < 1 || args.Signals.Percentile > 100:
		t.Errorf("percentile %d", args.Signals.Percentile)
	case args.MaxCooldown.Duration < args.Cooldown.Duration || args.MaxCooldown.Duration > 168*time.Hour:
		t.Errorf("cooldown %s up to %s", args.Cooldown.Duration, args.MaxCooldown.Duration)
	case len(args.Strategies) == 0 || args.MinimumGain < 1:
		t.Errorf("strategies %v, minimum gain %v", args.Strategies, args.MinimumGain)
	}
}
