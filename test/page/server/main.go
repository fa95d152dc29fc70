// Server serves the page together with answers of the REST API that come from a
// made-up cluster. The cluster moves on with time, and is the same for the same
// moment since the start. The bearer token chooses which cluster is shown.
package main

import (
	"encoding/json"
	"flag"
	"fmt"
	"log"
	"net"
	"net/http"
	"reflect"
	"slices"
	"strings"
	"time"

	"github.com/ai-storage/orchestrator/pkg/server/dashboard"
	"github.com/ai-storage/orchestrator/pkg/server/restapi"
)

func main() {
	address := flag.String("address", "127.0.0.1:0", "`host:port` to listen on; port 0 takes a free one")
	flag.Parse()
	listener, err := net.Listen("tcp", *address)
	if err != nil {
		log.Fatal(err)
	}
	// Whoever starts the server reads its address here.
	fmt.Printf("http://%s\n", listener.Addr())
	log.Fatal((&http.Server{Handler: routes(worlds(time.Now())), ReadHeaderTimeout: 5 * time.Second}).Serve(listener))
}

func routes(all map[string]*world) http.Handler {
	mux := http.NewServeMux()
	mux.Handle("/", dashboard.Handler())
	for path, answer := range map[string]func(*world, *http.Request) any{
		"nodes":      func(w *world, _ *http.Request) any { return w.nodes(time.Now()) },
		"plan":       func(w *world, _ *http.Request) any { return w.plan(time.Now()) },
		"metrics":    func(w *world, _ *http.Request) any { return w.figures(time.Now()) },
		"migrations": list,
	} {
		mux.HandleFunc("GET /api/v1/"+path, func(w http.ResponseWriter, r *http.Request) {
			if world := worldOf(w, r, all); world != nil {
				reply(w, http.StatusOK, answer(world, r))
			}
		})
	}
	mux.HandleFunc("GET /api/v1/watch", func(w http.ResponseWriter, r *http.Request) {
		if world := worldOf(w, r, all); world != nil {
			watch(w, r, world)
		}
	})
	return mux
}

// worldOf answers as the API does when the token is none, or may not look.
func worldOf(w http.ResponseWriter, r *http.Request, all map[string]*world) *world {
	token := strings.TrimPrefix(r.Header.Get("Authorization"), "Bearer ")
	if token == "forbidden" {
		refuse(w, http.StatusForbidden, "Forbidden", `user "jane" cannot list podmigrations.migration.ai-storage in all namespaces`)
		return nil
	}
	world := all[token]
	if world == nil {
		refuse(w, http.StatusUnauthorized, "Unauthorized", "the token is not valid: send the header Authorization: Bearer TOKEN")
	}
	return world
}

func refuse(w http.ResponseWriter, code int, reason, message string) {
	reply(w, code, restapi.ErrorBody{Error: &restapi.Error{Code: code, Reason: reason, Message: message}})
}

func reply(w http.ResponseWriter, code int, body any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(code)
	if err := json.NewEncoder(w).Encode(body); err != nil {
		log.Print(err)
	}
}

func list(w *world, r *http.Request) any {
	wanted := r.URL.Query()["phase"]
	answer := restapi.List{Items: []restapi.Migration{}}
	for _, m := range w.migrations(time.Now()) {
		if len(wanted) == 0 || slices.Contains(wanted, string(m.Phase)) {
			answer.Items = append(answer.Items, m)
		}
	}
	return answer
}

// watch sends what has changed a few times a second.
func watch(w http.ResponseWriter, r *http.Request, world *world) {
	if world.withoutStream {
		refuse(w, http.StatusServiceUnavailable, "Unavailable", "too many clients are listening: try again")
		return
	}
	w.Header().Set("Content-Type", "text/event-stream")
	send := func(name string, data any) {
		encoded, err := json.Marshal(data)
		if err != nil {
			log.Print(err)
			return
		}
		fmt.Fprintf(w, "event: %s\ndata: %s\n\n", name, encoded)
	}
	fmt.Fprint(w, ": listening\n\n")
	known := map[string]restapi.Migration{}
	tick := time.NewTicker(200 * time.Millisecond)
	defer tick.Stop()
	for round := 1; ; round++ {
		now := time.Now()
		for _, m := range world.migrations(now) {
			before, seen := known[m.ID]
			known[m.ID] = m
			if seen && !reflect.DeepEqual(before, m) || !seen && !m.Phase.IsFinished() {
				send("migration", m)
			}
		}
		if round%25 == 0 {
			send("nodes", world.nodes(now))
			send("plan", restapi.PlanChanged{Time: now})
		}
		if http.NewResponseController(w).Flush() != nil {
			return
		}
		select {
		case <-r.Context().Done():
			return
		case <-tick.C:
		}
	}
}
