// The one file of the image on which the cluster's sandboxes and its tests' pods run.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/signal"
	"strings"
	"sync/atomic"
	"syscall"
	"time"
)

const timeout = 3 * time.Second

func main() {
	commands := map[string]struct {
		arguments int
		run       func([]string) error
	}{
		"pause":   {0, pause},
		"serve":   {1, serve},
		"get":     {1, get},
		"post":    {1, post},
		"resolve": {1, resolve},
		"read":    {1, read},
		"write":   {2, write},
		"burn":    {0, burn},
	}
	if len(os.Args) < 2 || len(os.Args)-2 != commands[os.Args[1]].arguments {
		fmt.Fprintln(os.Stderr, "pause | serve ADDRESS | get URL | post URL | resolve NAME | read FILE | write FILE TEXT | burn")
		os.Exit(2)
	}
	if err := commands[os.Args[1]].run(os.Args[2:]); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

// pause waits to be told to end; as the first process of a sandbox it reaps what is left to it.
func pause([]string) error {
	signals := make(chan os.Signal, 16)
	signal.Notify(signals, syscall.SIGINT, syscall.SIGTERM, syscall.SIGCHLD)
	for received := range signals {
		if received != syscall.SIGCHLD {
			return nil
		}
		for {
			if pid, err := syscall.Wait4(-1, nil, syscall.WNOHANG, nil); pid <= 0 || err != nil {
				break
			}
		}
	}
	return nil
}

// serve answers HTTP: `/` says who answers whom, `/ready` is what was last posted to it (at first: ready).
func serve(arguments []string) error {
	ctx, cancel := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer cancel()
	name, err := os.Hostname()
	if err != nil {
		return err
	}
	var unready atomic.Bool
	http.HandleFunc("/", func(response http.ResponseWriter, request *http.Request) {
		fmt.Printf("%s %s\n", request.Method, request.URL.Path)
		fmt.Fprintf(response, "%s to %s\n", name, request.RemoteAddr)
	})
	http.HandleFunc("/ready", func(response http.ResponseWriter, request *http.Request) {
		if request.Method == http.MethodPost {
			unready.Store(request.URL.Query().Get("is") == "no")
		} else if unready.Load() {
			response.WriteHeader(http.StatusServiceUnavailable)
		}
	})
	server := &http.Server{Addr: arguments[0], ReadHeaderTimeout: timeout}
	go func() {
		<-ctx.Done()
		_ = server.Close()
	}()
	if err := server.ListenAndServe(); !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return nil
}

func get(arguments []string) error {
	return ask(http.MethodGet, arguments[0])
}

func post(arguments []string) error {
	return ask(http.MethodPost, arguments[0])
}

func ask(method, url string) error {
	request, err := http.NewRequest(method, url, nil)
	if err != nil {
		return err
	}
	client := http.Client{Timeout: timeout}
	response, err := client.Do(request)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	if response.StatusCode != http.StatusOK {
		return errors.New(response.Status)
	}
	_, err = io.Copy(os.Stdout, response.Body)
	return err
}

func resolve(arguments []string) error {
	ctx, cancel := context.WithTimeout(context.Background(), timeout)
	defer cancel()
	addresses, err := net.DefaultResolver.LookupHost(ctx, arguments[0])
	if err != nil {
		return err
	}
	fmt.Println(strings.Join(addresses, "\n"))
	return nil
}

func read(arguments []string) error {
	text, err := os.ReadFile(arguments[0])
	if err != nil {
		return err
	}
	_, err = os.Stdout.Write(text)
	return err
}

func write(arguments []string) error {
	return os.WriteFile(arguments[0], []byte(arguments[1]), 0o644)
}

// burn uses all of one processor.
func burn([]string) error {
	for {
	}
}
