package streams

import (
	"errors"
	"io"
	"os/exec"
	"strings"
	"testing"

	"k8s.io/cri-streaming/pkg/streaming/remotecommand"
	utilexec "k8s.io/utils/exec"
)

func TestACommandIsConnected(t *testing.T) {
	for name, row := range map[string]struct {
		script, in, out, err string
		code                 int
	}{
		"output":                     {script: "echo a; echo b >&2", out: "a\n", err: "b\n"},
		"input":                      {script: "cat", in: "a\nb", out: "a\nb"},
		"input that nobody reads":    {script: "echo a", in: strings.Repeat("x", 1<<20), out: "a\n"},
		"an exit code":               {script: "exit 7", code: 7},
		"a signal":                   {script: "kill -9 $$", code: 137},
		"more than a pipe can hold":  {script: "head -c 300000 /dev/zero | tr '\\0' x", out: strings.Repeat("x", 300000)},
		"a session of its own":       {script: "[ $$ = $(ps -o sid= -p $$) ]"},
		"both kinds of output apart": {script: "echo a >&2; exit 1", err: "a\n", code: 1},
	} {
		var out, err strings.Builder
		connected := Streams{Out: &out, Err: &err}
		if row.in != "" {
			connected.In = strings.NewReader(row.in)
		}
		check(t, name, Run(exec.CommandContext(t.Context(), "sh", "-c", row.script), (*exec.Cmd).Start, connected), row.code)
		if out.String() != row.out || err.String() != row.err {
			t.Errorf("%s: %.40q and %.40q, want %.40q and %.40q", name, out.String(), err.String(), row.out, row.err)
		}
	}
}

func TestACommandHasATerminal(t *testing.T) {
	var out strings.Builder
	sizes := make(chan remotecommand.TerminalSize, 1)
	sizes <- remotecommand.TerminalSize{Width: 81, Height: 23}
	close(sizes)
	in, typed := io.Pipe()
	defer typed.Close()
	script := `until [ "$(stty size)" = "23 81" ]; do :; done; tty >/dev/null && echo yes; exit 3`
	err := Run(exec.CommandContext(t.Context(), "sh", "-c", script), (*exec.Cmd).Start, Streams{In: in, Out: &out, Terminal: true, Resize: sizes})
	check(t, "terminal", err, 3)
	if out.String() != "yes\r\n" {
		t.Errorf("the terminal shows %q", out.String())
	}
}

func TestACommandThatDoesNotStart(t *testing.T) {
	refuse := func(*exec.Cmd) error { return errors.New("no") }
	for _, terminal := range []bool{false, true} {
		err := Run(exec.CommandContext(t.Context(), "true"), refuse, Streams{In: strings.NewReader(""), Terminal: terminal})
		if err == nil || err.Error() != "no" {
			t.Errorf("terminal %v: %v", terminal, err)
		}
	}
}

func check(t *testing.T, name string, err error, code int) {
	t.Helper()
	failure, failed := errors.AsType[utilexec.CodeExitError](err)
	if failure.Code != code || failed != (code != 0) || (err != nil && !failed) {
		t.Errorf("%s: %v, want exit code %d", name, err, code)
	}
}
