package main

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

const nodesFile = "sn,cpu_milli,memory_mib,gpu,model\nnode-0,64000,262144,2,P100\nnode-1,96000,393216,8,V100\n"

const podsFile = `name,cpu_milli,memory_mib,num_gpu,gpu_milli,gpu_spec,qos
pod-0,12000,16384,1,1000,,LS
pod-1,6000,12288,1,460,V100M16|V100M32,LS
pod-2,8000,30517,0,0,,BE
pod-3,64000,262144,8,1000,,LS
`

func TestReadNodesAndPods(t *testing.T) {
	nodes, err := readNodes(strings.NewReader(nodesFile))
	if err != nil {
		t.Fatal(err)
	}
	want := []shape{{"node-0", amounts{64000, 262144, 2000}}, {"node-1", amounts{96000, 393216, 8000}}}
	if diff := cmp.Diff(want, nodes, cmp.AllowUnexported(shape{}, amounts{})); diff != "" {
		t.Errorf("nodes (-want +got):\n%s", diff)
	}
	pods, err := readPods(strings.NewReader(podsFile))
	if err != nil {
		t.Fatal(err)
	}
	want = []shape{
		{"pod-0", amounts{12000, 16384, 1000}}, {"pod-1", amounts{6000, 12288, 460}},
		{"pod-2", amounts{8000, 30517, 0}}, {"pod-3", amounts{64000, 262144, 8000}},
	}
	if diff := cmp.Diff(want, pods, cmp.AllowUnexported(shape{}, amounts{})); diff != "" {
		t.Errorf("pods (-want +got):\n%s", diff)
	}
}

func TestReadShapesRefuses(t *testing.T) {
	for name, test := range map[string]struct{ content, want string }{
		"no rows":       {"sn,cpu_milli,memory_mib,gpu\n", "no rows"},
		"no column":     {"sn,cpu_milli,memory_mib\na,1,1\n", "no column gpu"},
		"no name":       {"cpu_milli,memory_mib,gpu\n1,1,1\n", "no column sn"},
		"not a number":  {"sn,cpu_milli,memory_mib,gpu\na,1,many,1\n", `line 2: memory_mib is "many"`},
		"below nothing": {"sn,cpu_milli,memory_mib,gpu\na,-1,1,1\n", `cpu_milli is "-1"`},
	} {
		if _, err := readNodes(strings.NewReader(test.content)); err == nil || !strings.Contains(err.Error(), test.want) {
			t.Errorf("%s: error %v, want %q", name, err, test.want)
		}
	}
}

func archiveOf(t *testing.T, files map[string]string) []byte {
	t.Helper()
	var content bytes.Buffer
	zipped := gzip.NewWriter(&content)
	archive := tar.NewWriter(zipped)
	for name, text := range files {
		header := &tar.Header{Name: name, Typeflag: tar.TypeReg, Mode: 0o644, Size: int64(len(text))}
		if err := archive.WriteHeader(header); err != nil {
			t.Fatal(err)
		}
		if _, err := archive.Write([]byte(text)); err != nil {
			t.Fatal(err)
		}
	}
	for _, closer := range []func() error{archive.Close, zipped.Close} {
		if err := closer(); err != nil {
			t.Fatal(err)
		}
	}
	return content.Bytes()
}

func TestReadTraces(t *testing.T) {
	traces, err := readTraces(bytes.NewReader(archiveOf(t, map[string]string{"p/2": "7\n\n8.5\n", "p/1": "0\n100\n"})))
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]trace{{0, 100}, {7, 8.5}}, traces); diff != "" {
		t.Errorf("traces (-want +got):\n%s", diff)
	}
	for _, bad := range []string{"x\n", "101\n", "-1\n"} {
		if _, err := readTraces(bytes.NewReader(archiveOf(t, map[string]string{"p/1": bad}))); err == nil {
			t.Errorf("%q is accepted", bad)
		}
	}
}

func TestLoadDataset(t *testing.T) {
	directory := t.TempDir()
	generated, err := loadDataset(filepath.Join(directory, "absent"))
	if err != nil || !strings.Contains(generated.source, "generated") {
		t.Fatalf("without a directory: %v, %v", generated, err)
	}
	if diff := cmp.Diff(generated, generateDataset(), cmp.AllowUnexported(dataset{}, shape{}, amounts{})); diff != "" {
		t.Errorf("two generated data sets differ:\n%s", diff)
	}
	if _, err := loadDataset(directory); err == nil {
		t.Error("a directory without data is accepted")
	}
	for path, content := range map[string][]byte{
		"openb/some_node_list.csv": []byte(nodesFile), "openb/some_pod_list.csv": []byte(podsFile),
		"usage/some.tgz": archiveOf(t, map[string]string{"p/1": "50\n60\n"}),
	} {
		path = filepath.Join(directory, path)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, content, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	data, err := loadDataset(directory)
	if err != nil {
		t.Fatal(err)
	}
	if len(data.nodes) != 2 || len(data.pods) != 4 || len(data.traces) != 1 || !strings.Contains(data.source, "some.tgz") {
		t.Errorf("read %+v", data)
	}
}
