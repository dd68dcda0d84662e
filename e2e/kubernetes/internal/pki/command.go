package pki

import (
	"net"
	"time"

	"github.com/spf13/cobra"
)

// NewCommand is the subcommand `pki`.
func NewCommand() *cobra.Command {
	var layout Layout
	command := &cobra.Command{
		Use:          "pki",
		Short:        "Make the certificates, keys and kubeconfig files of a lab",
		Args:         cobra.NoArgs,
		SilenceUsage: true,
		RunE: func(*cobra.Command, []string) error {
			if layout.ServerURL == "" && len(layout.ServerAddresses) > 0 {
				layout.ServerURL = "https://" + net.JoinHostPort(layout.ServerAddresses[0].String(), "6443")
			}
			return layout.Write(time.Now())
		},
	}
	flags := command.Flags()
	flags.StringVar(&layout.Directory, "directory", "", "where the files go")
	flags.IPSliceVar(&layout.ServerAddresses, "server-address", nil, "addresses of the API server")
	flags.StringSliceVar(&layout.ServerNames, "server-name", nil, "names of the server beyond those of every API server")
	flags.StringVar(&layout.ServerURL, "server-url", "", "URL in the kubeconfig files (default: https on port 6443 of the first server address)")
	flags.StringSliceVar(&layout.Nodes, "node", nil, "nodes that get a kubeconfig file")
	for _, required := range []string{"directory", "server-address"} {
		if err := command.MarkFlagRequired(required); err != nil {
			panic(err)
		}
	}
	return command
}
