//go:build e2e

package e2e

import (
	"bufio"
	"context"
	"crypto/rand"
	"encoding/hex"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"

	"github.com/ai-storage/orchestrator/pkg/apis/migration/v1alpha1"
)

// Programs that we did not write, from Debian's packages, move with their memory.

// programArchives are images that make bin/programs builds.
func programArchives() []string {
	archives, _ := filepath.Glob("../../bin/programs/*.tar") // the pattern is well-formed
	return archives
}

func programImage(name string) string { return "docker.io/ai-storage/" + name + ":dev" }

// requirePrograms is for the long proofs; where these are asked for, nothing may be missing.
func requirePrograms(t *testing.T) {
	t.Helper()
	if !isFull() {
		t.Skip("a long proof: E2E_FULL=1")
	}
	if len(programArchives()) == 0 {
		t.Fatal("needs images: make bin/programs/postgres.tar")
	}
	if _, err := os.Stat("../../bin/criu"); err != nil {
		t.Fatal("needs CRIU: make bin/criu")
	}
	requireProcessNodes(t)
}

// programPod runs a program of one of the images, whose processes can move.
func programPod(namespace, name string, command ...string) *corev1.Pod {
	pod := excluded(newPod(namespace, name, corev1.Container{
		Name: name, Image: programImage(name), Command: command,
		Resources: corev1.ResourceRequirements{Requests: corev1.ResourceList{
			corev1.ResourceCPU: resource.MustParse("100m"), corev1.ResourceMemory: resource.MustParse("128Mi"),
		}},
	}))
	pod.Spec.RuntimeClassName = new(v1alpha1.ProcessRuntimeClass)
	return pod
}

// moveProgram moves a bare pod with its memory to the other node and returns the
// pod that it is then.
func moveProgram(t *testing.T, pod *corev1.Pod, number int) *corev1.Pod {
	t.Helper()
	migration := migrate(t, pod, func(m *v1alpha1.PodMigration) {
		withProcesses(m)
		m.Name, m.Spec.TargetNode = fmt.Sprintf("move-%d", number), otherNode(pod)
	})
	wantSucceeded(t, migration, 5*time.Minute)
	if c := migration.Status.Checkpoint; c.Restored != v1alpha1.RestoredProcesses {
		t.Fatalf("%s continued with %q", migration.Name, c.Restored)
	}
	reportStop(t, migration)
	moved, err := getPod(t.Context(), pod.Namespace, migration.Status.Replacement.Name)
	if err != nil {
		t.Fatal(err)
	}
	return moved
}

// secret is something that only this run can know.
func secret(t *testing.T) string {
	t.Helper()
	bytes := make([]byte, 16)
	if _, err := rand.Read(bytes); err != nil {
		t.Fatal(err)
	}
	return hex.EncodeToString(bytes)
}

// redisKeys is how many keys redis-server holds in memory, and nowhere else.
const redisKeys = 100_000

func TestRedisMoves(t *testing.T) {
	requirePrograms(t)
	namespace := newNamespace(t)
	pod := startOn(t, env.nodes[0], programPod(namespace, "redis",
		"redis-server", "--save", "", "--appendonly", "no", "--protected-mode", "no", "--bind", "0.0.0.0"))
	nonce := secret(t)
	value := func(i int) string { return fmt.Sprintf("%s-%d", nonce, i*i) }
	server := dialRedis(t, pod)
	for i := range redisKeys {
		server.ask("SET", fmt.Sprintf("key:%06d", i), value(i))
	}
	for range redisKeys {
		server.want(t, "OK")
	}
	server.ask("SET", "nonce", nonce)
	server.want(t, "OK")
	run := server.runID(t)
	for move := range 4 {
		pod = moveProgram(t, pod, move)
		server = dialRedis(t, pod)
		server.ask("GET", "nonce")
		server.want(t, nonce)
		server.ask("DBSIZE")
		server.want(t, strconv.Itoa(redisKeys+1))
		for i := range redisKeys {
			server.ask("GET", fmt.Sprintf("key:%06d", i))
		}
		for i := range redisKeys {
			server.want(t, value(i))
		}
		if now := server.runID(t); now != run {
			t.Fatalf("run_id was %s and is %s: redis-server started again", run, now)
		}
		t.Logf("move %d to %s: nonce read back, %d of %d keys equal, run_id %s as before", move, pod.Spec.NodeName, redisKeys, redisKeys, run)
	}
}

// redisClient speaks Redis' protocol (RESP 2). What is asked is sent with the
// first answer that is wanted.
type redisClient struct {
	connection net.Conn
	in         *bufio.Reader
	out        *strings.Builder
}

func dialRedis(t *testing.T, pod *corev1.Pod) *redisClient {
	t.Helper()
	connection := dial(t, pod, "6379")
	return &redisClient{connection: connection, in: bufio.NewReader(connection), out: &strings.Builder{}}
}

// dial connects to a port of a pod, which may not listen yet.
func dial(t *testing.T, pod *corev1.Pod, port string) (connection net.Conn) {
	t.Helper()
	eventually(t, 30*time.Second, "pod "+pod.Name+" listens", func(ctx context.Context) (err error) {
		connection, err = (&net.Dialer{Timeout: time.Second}).DialContext(ctx, "tcp", net.JoinHostPort(pod.Status.PodIP, port))
		return err
	})
	t.Cleanup(func() { connection.Close() })
	if err := connection.SetDeadline(time.Now().Add(time.Minute)); err != nil {
		t.Fatal(err)
	}
	return connection
}

func (c *redisClient) ask(words ...string) {
	fmt.Fprintf(c.out, "*%d\r\n", len(words))
	for _, word := range words {
		fmt.Fprintf(c.out, "$%d\r\n%s\r\n", len(word), word)
	}
}

func (c *redisClient) answer() (string, error) {
	if c.out.Len() > 0 {
		text := c.out.String()
		c.out.Reset()
		// The server answers before it has read all.
		go func() { _, _ = io.WriteString(c.connection, text) }()
	}
	line, err := c.in.ReadString('\n')
	if err != nil {
		return "", err
	}
	kind, rest := line[0], strings.TrimSuffix(line[1:], "\r\n")
	if kind != '$' {
		return rest, nil
	}
	length, err := strconv.Atoi(rest)
	if err != nil || length < 0 {
		return "", fmt.Errorf("there is no value: %s", line)
	}
	content := make([]byte, length+len("\r\n"))
	_, err = io.ReadFull(c.in, content)
	return string(content[:length]), err
}

func (c *redisClient) want(t *testing.T, want string) {
	t.Helper()
	if got, err := c.answer(); err != nil || got != want {
		t.Fatalf("redis-server answered %q, %v, want %q", got, err, want)
	}
}

// runID is made at random when redis-server starts.
func (c *redisClient) runID(t *testing.T) string {
	t.Helper()
	c.ask("INFO", "server")
	info, err := c.answer()
	_, after, found := strings.Cut(info, "run_id:")
	if err != nil || !found {
		t.Fatalf("redis-server told no run_id: %v", err)
	}
	id, _, _ := strings.Cut(after, "\r")
	return id
}

// pythonProgram keeps an array of random bytes, which nobody else has, and counts
// in a thread of its own. It tells a random word of its start, the count, and the
// array's checksum, computed again.
const pythonProgram = `
import os, socket, threading, time, zlib
size = 256 << 20
data = bytearray(size)
for at in range(0, size, 1 << 20):
    data[at:at + (1 << 20)] = os.urandom(1 << 20)
born, count = os.urandom(8).hex(), 0
def tick():
    global count
    while True:
        count += 1
        time.sleep(0.01)
threading.Thread(target=tick, daemon=True).start()
server = socket.create_server(("", 8080))
while True:
    client, _ = server.accept()
    with client:
        client.sendall(f"{born} {zlib.crc32(data)} {len(data)} {count}\n".encode())
`

func TestPythonMoves(t *testing.T) {
	requirePrograms(t)
	namespace := newNamespace(t)
	pod := startOn(t, env.nodes[0], programPod(namespace, "python", "python3.11", "-c", pythonProgram))
	before, count := askPython(t, pod)
	for move := range 3 {
		pod = moveProgram(t, pod, move)
		after, next := askPython(t, pod)
		if after != before || next <= count {
			t.Fatalf("it told %q and count %d, then %q and count %d", before, count, after, next)
		}
		time.Sleep(100 * time.Millisecond)
		if _, later := askPython(t, pod); later <= next {
			t.Fatalf("the count stays at %d", later)
		}
		t.Logf("move %d to %s: start, checksum and length %s as before, count %d → %d", move, pod.Spec.NodeName, after, count, next)
		count = next
	}
}

// askPython returns what must stay as it is, and the count.
func askPython(t *testing.T, pod *corev1.Pod) (lasting string, count int) {
	t.Helper()
	line, err := bufio.NewReader(dial(t, pod, "8080")).ReadString('\n')
	if err != nil {
		t.Fatal(err)
	}
	last := strings.LastIndexByte(line, ' ')
	if count, err = strconv.Atoi(strings.TrimSpace(line[last+1:])); err != nil {
		t.Fatal(err)
	}
	return line[:last], count
}
