// Command kubernetes is the Kubernetes of the lab in one program: the real
// control plane, the real kube-proxy and kubectl, and our own node agent.
package main

import (
	"fmt"
	"os"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"go.etcd.io/etcd/server/v3/etcdmain"
	"k8s.io/component-base/cli"
	_ "k8s.io/component-base/logs/json/register"
	_ "k8s.io/component-base/metrics/prometheus/clientgo"
	_ "k8s.io/component-base/metrics/prometheus/version"
	kubectlcli "k8s.io/kubectl/pkg/cmd"
	kubectlutil "k8s.io/kubectl/pkg/cmd/util"
	apiserver "k8s.io/kubernetes/cmd/kube-apiserver/app"
	controllermanager "k8s.io/kubernetes/cmd/kube-controller-manager/app"
	proxy "k8s.io/kubernetes/cmd/kube-proxy/app"
	scheduler "k8s.io/kubernetes/cmd/kube-scheduler/app"

	"foghorn.dev/e2e/kubernetes/internal/nodeagent"
	"foghorn.dev/e2e/kubernetes/internal/pki"
)

// programs maps the name of a subcommand to what it runs. Each finds its own
// name in os.Args[0] and its arguments in the rest.
var programs = map[string]func() int{
	"etcd":                    func() int { etcdmain.Main(os.Args); return 0 },
	"kube-apiserver":          command(apiserver.NewAPIServerCommand),
	"kube-controller-manager": command(controllermanager.NewControllerManagerCommand),
	"kube-scheduler":          command(func() *cobra.Command { return scheduler.NewSchedulerCommand() }),
	"kube-proxy":              command(proxy.NewProxyCommand),
	"kubectl":                 kubectl,
	"pki":                     command(pki.NewCommand),
	"node-agent":              command(nodeagent.NewCommand),
}

func main() {
	os.Exit(run())
}

func run() int {
	names := make([]string, 0, len(programs))
	for name := range programs {
		names = append(names, name)
	}
	slices.Sort(names)
	if len(os.Args) < 2 {
		fmt.Fprintf(os.Stderr, "name a program: %s\n", strings.Join(names, ", "))
		return 2
	}
	program, known := programs[os.Args[1]]
	if !known {
		fmt.Fprintf(os.Stderr, "%q is not a program of the lab: choose one of %s\n", os.Args[1], strings.Join(names, ", "))
		return 2
	}
	os.Args = os.Args[1:]
	return program()
}

// command runs a cobra command as the Kubernetes programs do.
func command(build func() *cobra.Command) func() int {
	return func() int { return cli.Run(build()) }
}

// kubectl reports errors with its own exit codes.
func kubectl() int {
	command := kubectlcli.NewDefaultKubectlCommand()
	if err := cli.RunNoErrOutput(command); err != nil {
		kubectlutil.CheckErr(err)
	}
	return 0
}
