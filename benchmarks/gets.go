// The comparison for benchmarks/gets.py: Go's net/http answers VolumeDriver.Get with the volume
// that the file of the second argument holds, as a plugin written in Go does.
package main

import (
	"encoding/json"
	"log"
	"net"
	"net/http"
	"os"
	"sync"
)

type volume struct {
	Name       string
	Mountpoint string
	CreatedAt  string
	Status     map[string]string
}

type request struct{ Name string }

type response struct {
	Volume *volume `json:",omitempty"`
	Err    string
}

func main() {
	text, err := os.ReadFile(os.Args[2])
	if err != nil {
		log.Fatal(err)
	}
	var known volume
	if err := json.Unmarshal(text, &known); err != nil {
		log.Fatal(err)
	}
	var lock sync.RWMutex
	volumes := map[string]*volume{known.Name: &known}
	http.HandleFunc("/VolumeDriver.Get", func(w http.ResponseWriter, r *http.Request) {
		var asked request
		if err := json.NewDecoder(r.Body).Decode(&asked); err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		lock.RLock()
		found := volumes[asked.Name]
		lock.RUnlock()
		answer := response{Volume: found}
		if found == nil {
			answer.Err = "no such volume"
		}
		w.Header().Set("Content-Type", "application/vnd.docker.plugins.v1.2+json")
		json.NewEncoder(w).Encode(answer)
	})
	listener, err := net.Listen("unix", os.Args[1])
	if err != nil {
		log.Fatal(err)
	}
	log.Fatal(http.Serve(listener, nil))
}
