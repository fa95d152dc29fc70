// Command workload is the container of demos and tests: its arguments say how much
// CPU and memory it uses, for how long, and how it ends.
//
//	workload run --cpu=250m --memory=64Mi --for=10s --exit-code=0
//	workload record --file=/data/records --collector=http://10.0.0.1:8080
//	workload collect --http=:8080
//	workload fill --dir=/data --bytes=256Mi --files=100
//	workload get http://10.0.0.1:8080/
//	workload pause
//
// `record` appends numbered records to a file, makes each durable, and only
// then acknowledges it to a `collect`, which counts what was lost or
// acknowledged twice. `fill` makes data to carry. `get` prints an answer and fails unless it is OK: a probe, or a look from
// inside a pod. `pause` is the sandbox of a pod: it waits for a signal and
// reaps what others leave behind.
//
// The program uses the standard library only, so that its image is one small
// static binary. It must not know Kubernetes.
package main
