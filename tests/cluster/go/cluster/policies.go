package main

import (
	"flag"

	"k8s.io/client-go/informers"
	"sigs.k8s.io/kube-network-policies/pkg/networkpolicy"
)

// enforcePolicies answers, for each new connection that the node's firewall queues, whether the
// NetworkPolicies allow it.
//
// It is kube-network-policies but for its rules: those are written for nftables' queue, which not every kernel
// has. Whoever starts this queues the packets (iptables, NFQUEUE); the rules that the library tries to
// write as well fail as a whole where that queue is missing, and it says so in its log and goes on.
func enforcePolicies() error {
	node := flag.String("node", "", "the node whose pods are protected")
	queue := flag.Int("queue", 100, "the number of the netfilter queue")
	ctx, cancel, client, err := connect()
	if err != nil {
		return err
	}
	defer cancel()
	factory := informers.NewSharedInformerFactory(client, 0)
	controller, err := networkpolicy.NewController(
		client,
		factory.Networking().V1().NetworkPolicies(),
		factory.Core().V1().Namespaces(),
		factory.Core().V1().Pods(),
		nil, nil, nil, nil,
		networkpolicy.Config{NodeName: *node, QueueID: *queue},
	)
	if err != nil {
		return err
	}
	factory.Start(ctx.Done())
	return controller.Run(ctx)
}
