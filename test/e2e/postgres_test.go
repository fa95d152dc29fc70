//go:build e2e

package e2e

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
	corev1 "k8s.io/api/core/v1"

	"github.com/ai-storage/orchestrator/test/devcluster"
)

// postgresUser is in the images' /etc/passwd: PostgreSQL refuses to run as root.
const postgresUser = 999

// transaction is pgbench's own, with a numbered row beside: pgbench counts a
// client's transactions in its log as n does.
const transaction = `\set n :n + 1
\set aid random(1, 200000)
\set bid random(1, 2)
\set tid random(1, 20)
\set delta random(-5000, 5000)
BEGIN;
UPDATE pgbench_accounts SET abalance = abalance + :delta WHERE aid = :aid;
SELECT abalance FROM pgbench_accounts WHERE aid = :aid;
UPDATE pgbench_tellers SET tbalance = tbalance + :delta WHERE tid = :tid;
UPDATE pgbench_branches SET bbalance = bbalance + :delta WHERE bid = :bid;
INSERT INTO pgbench_history (tid, bid, aid, delta, mtime) VALUES (:tid, :bid, :aid, :delta, CURRENT_TIMESTAMP);
INSERT INTO records (run, client, n) VALUES (:run, :client_id, :n);
END;
`

// load runs pgbench against the address in a file, again and again: it gives a
// connection up that broke. Its logs hold every acknowledged transaction.
const load = `printf '%s' "$TRANSACTION" >/load/transaction.sql
while [ ! -s /load/host ]; do sleep 0.1; done
read -r PGHOST </load/host
export PGHOST PGUSER=postgres PGDATABASE=postgres PGCONNECT_TIMEOUT=2
until pgbench -i -q -s 2; do sleep 1; done
psql -c 'CREATE TABLE records (run int, client int, n int, PRIMARY KEY (run, client, n))'
run=0
while [ ! -e /load/stop ]; do
	read -r PGHOST </load/host
	run=$((run + 1))
	pgbench -n -c 4 -T 10 -D run=$run -D n=0 -f /load/transaction.sql --log --log-prefix=/load/log.$run "tcp_user_timeout=5000" || sleep 0.2
done
echo done >/load/done
sleep infinity
`

// initialize makes the database. The server wants its directory to be its user's.
const initialize = `mkdir -m 700 /data/pg && chown 999 /data/pg && initdb -D /data/pg -A trust -U postgres -E UTF8 &&
echo 'host all all all trust' >>/data/pg/pg_hba.conf`

// postgresPod is a pod of the postgres image with an emptyDir.
func postgresPod(namespace, name, directory string, command ...string) *corev1.Pod {
	pod := programPod(namespace, name, command...)
	pod.Spec.Containers[0].Image = programImage("postgres")
	pod.Spec.Containers[0].VolumeMounts = []corev1.VolumeMount{{Name: "scratch", MountPath: directory}}
	pod.Spec.Volumes = []corev1.Volume{{Name: "scratch", VolumeSource: corev1.VolumeSource{EmptyDir: &corev1.EmptyDirVolumeSource{}}}}
	return pod
}

// asPostgres runs a pod as the user that PostgreSQL asks for. Where CRIU can dump
// no processes but root's, they are root's, and PostgreSQL is configured for it.
func asPostgres(t *testing.T, pod *corev1.Pod) {
	t.Helper()
	// Root of a machine in a sandbox may lack it.
	has, err := unix.PrctlRetInt(unix.PR_CAPBSET_READ, unix.CAP_SYS_RESOURCE, 0, 0, 0)
	if err != nil {
		t.Fatal(err)
	}
	if has == 1 {
		pod.Spec.SecurityContext = postgresContext()
		return
	}
	t.Log("root has no CAP_SYS_RESOURCE here: PostgreSQL runs as root")
	for _, containers := range [][]corev1.Container{pod.Spec.InitContainers, pod.Spec.Containers} {
		for i := range containers {
			containers[i].Env = append(containers[i].Env, corev1.EnvVar{Name: "LD_PRELOAD", Value: "/usr/lib/notroot.so"})
		}
	}
}

func postgresContext() *corev1.PodSecurityContext {
	return &corev1.PodSecurityContext{
		RunAsUser: new(int64(postgresUser)), RunAsGroup: new(int64(postgresUser)), FSGroup: new(int64(postgresUser)),
	}
}

// PostgreSQL is several processes with shared memory. Under pgbench's load from
// another node, whose clients connect again after each move, no acknowledged
// transaction is lost, none is half there, and the server never starts again.
func TestPostgresMoves(t *testing.T) {
	requirePrograms(t)
	namespace := newNamespace(t)
	pod := postgresPod(namespace, "postgres", "/data", "postgres", "-D", "/data/pg", "-c", "listen_addresses=*", "-c", "unix_socket_directories=/tmp")
	pod.Spec.InitContainers = []corev1.Container{{
		Name: "initdb", Image: programImage("postgres"), VolumeMounts: pod.Spec.Containers[0].VolumeMounts,
		Command: []string{"sh", "-c", initialize},
	}}
	asPostgres(t, pod)
	pod = startOn(t, env.nodes[0], pod)
	client := postgresPod(namespace, "load", "/load", "sh", "-c", load)
	client.Spec.RuntimeClassName, client.Spec.SecurityContext = nil, postgresContext()
	client.Spec.Containers[0].Env = []corev1.EnvVar{{Name: "TRANSACTION", Value: transaction}}
	onObserver(&client.Spec)
	create(t, client)
	waitRunning(t, client)
	directory, err := devcluster.PodPath(client.UID, "/load")
	if err != nil {
		t.Fatal(err)
	}
	pointLoadAt(t, directory, pod)
	awaitRows(t, client, pod)
	started := query(t, client, pod, "SELECT pg_postmaster_start_time()")
	for move := range 3 {
		pod = moveProgram(t, pod, move)
		pointLoadAt(t, directory, pod)
		awaitRows(t, client, pod)
		if now := query(t, client, pod, "SELECT pg_postmaster_start_time()"); now != started {
			t.Fatalf("the server started at %s, and again at %s", started, now)
		}
		t.Logf("move %d to %s: the server of %s works on, %s rows", move, pod.Spec.NodeName, started, query(t, client, pod, "SELECT count(*) FROM records"))
	}
	wantCommitted(t, directory, client, pod)
	wantBalanced(t, client, pod)
}

func pointLoadAt(t *testing.T, directory string, pod *corev1.Pod) {
	t.Helper()
	host := filepath.Join(directory, "host")
	if err := os.WriteFile(host+".new", []byte(pod.Status.PodIP+"\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(host+".new", host); err != nil {
		t.Fatal(err)
	}
}

// awaitRows waits until clients commit again.
func awaitRows(t *testing.T, client, server *corev1.Pod) {
	t.Helper()
	before := int64(-1)
	eventually(t, 90*time.Second, "clients commit", func(ctx context.Context) error {
		text, err := psql(ctx, client, server, "SELECT count(*) FROM records")
		if err != nil {
			return err
		}
		rows, err := strconv.ParseInt(text, 10, 64)
		if err != nil {
			return err
		}
		if before < 0 {
			before = rows
		}
		if rows < before+100 {
			return fmt.Errorf("%d rows", rows)
		}
		return nil
	})
}

// wantCommitted ends the load and wants every acknowledged transaction in the table.
// One that was under way when its connection closed may be there too.
func wantCommitted(t *testing.T, directory string, client, server *corev1.Pod) {
	t.Helper()
	if err := os.WriteFile(filepath.Join(directory, "stop"), nil, 0o644); err != nil {
		t.Fatal(err)
	}
	eventually(t, time.Minute, "the load ends", func(context.Context) error {
		_, err := os.Stat(filepath.Join(directory, "done"))
		return err
	})
	acknowledged, total := acknowledgedIn(t, directory), 0
	for key, last := range acknowledged {
		total += last
		run, worker, _ := strings.Cut(key, " ")
		text := query(t, client, server, fmt.Sprintf("SELECT count(*), coalesce(max(n), 0) FROM records WHERE run = %s AND client = %s", run, worker))
		count, largest, _ := strings.Cut(text, "|")
		if rows, _ := strconv.Atoi(count); rows < last || rows > last+1 || count != largest {
			t.Errorf("client %s of run %s: %d transactions acknowledged, %s rows up to %s", worker, run, last, count, largest)
		}
	}
	t.Logf("%d transactions acknowledged to %d clients, %s rows: none lost", total, len(acknowledged), query(t, client, server, "SELECT count(*) FROM records"))
	if total == 0 {
		t.Error("no transaction was acknowledged")
	}
}

// acknowledgedIn reads pgbench's logs: of each client the number of its last
// transaction, whose numbers have no gap.
func acknowledgedIn(t *testing.T, directory string) map[string]int {
	t.Helper()
	logs, err := filepath.Glob(filepath.Join(directory, "log.*"))
	if err != nil {
		t.Fatal(err)
	}
	last := map[string]int{}
	for _, path := range logs {
		content, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		run := strings.Split(filepath.Base(path), ".")[1]
		for line := range bytes.Lines(content) {
			// "client transaction time script …"
			words := strings.Fields(string(line))
			if len(words) < 3 {
				t.Fatalf("%s: %q", path, line)
			}
			number, err := strconv.Atoi(words[1])
			if key := run + " " + words[0]; err != nil || number != last[key]+1 || words[2] == "failed" {
				t.Fatalf("%s: transaction %q after %d", path, line, last[key])
			} else {
				last[key] = number
			}
		}
	}
	return last
}

// wantBalanced wants what pgbench changes in four tables by one transaction to agree.
func wantBalanced(t *testing.T, client, server *corev1.Pod) {
	t.Helper()
	sums := query(t, client, server, "SELECT (SELECT sum(abalance) FROM pgbench_accounts), (SELECT sum(tbalance) FROM pgbench_tellers), "+
		"(SELECT sum(bbalance) FROM pgbench_branches), (SELECT sum(delta) FROM pgbench_history), "+
		"(SELECT count(*) FROM pgbench_history) - (SELECT count(*) FROM records)")
	words := strings.Split(sums, "|")
	if len(words) != 5 || words[1] != words[0] || words[2] != words[0] || words[3] != words[0] || words[4] != "0" {
		t.Errorf("accounts, tellers, branches, history, rows too many: %s", sums)
	}
	t.Logf("accounts, tellers, branches and history agree: %s", words[0])
}

func query(t *testing.T, client, server *corev1.Pod, statement string) string {
	t.Helper()
	text, err := psql(t.Context(), client, server, statement)
	if err != nil {
		t.Fatal(err)
	}
	return text
}

// psql runs a statement from the client's pod.
func psql(ctx context.Context, client, server *corev1.Pod, statement string) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, 20*time.Second)
	defer cancel()
	out, err := exec.CommandContext(ctx, "../../bin/kubectl", "--kubeconfig", env.cluster.AdminKubeconfig(), "--namespace", client.Namespace,
		"exec", client.Name, "--", "psql", "-h", server.Status.PodIP, "-U", "postgres", "-AtX", "-c", statement).CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("%s: %w: %s", statement, err, out)
	}
	return strings.TrimSpace(string(out)), nil
}
