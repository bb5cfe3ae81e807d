package main

import (
	"context"
	"flag"
	"os"
	"os/signal"

	"golang.org/x/sys/unix"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/clientcmd"
)

// connect reads the flags, those of the caller too; what it gives is a client of the API, and what ends when
// the process is told to.
func connect() (context.Context, context.CancelFunc, *kubernetes.Clientset, error) {
	kubeconfig := flag.String("kubeconfig", "", "the file that says where the API is")
	flag.Parse()
	config, err := clientcmd.BuildConfigFromFlags("", *kubeconfig)
	if err != nil {
		return nil, nil, nil, err
	}
	client, err := kubernetes.NewForConfig(config)
	if err != nil {
		return nil, nil, nil, err
	}
	ctx, cancel := signal.NotifyContext(context.Background(), os.Interrupt, unix.SIGTERM)
	return ctx, cancel, client, nil
}
