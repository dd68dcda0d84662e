package server

import (
	"errors"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// oneFile is a source with one container, web/one/main.
type oneFile struct{ path string }

func (o oneFile) LogFile(namespace, pod, container string, previous bool) (string, error) {
	if namespace != "web" || pod != "one" || container != "main" || previous {
		return "", errors.New("no such container")
	}
	return o.path, nil
}

func (o oneFile) Logs() string { return filepath.Dir(o.path) }

func (o oneFile) Running(_, _, _ string) (Run, error) { return nil, errors.New("nothing runs") }

func (o oneFile) Pod(_, _ string) (Dial, error) { return nil, errors.New("there is no Pod") }

func TestLogs(t *testing.T) {
	long := strings.Repeat(strings.Repeat("x", 999)+"\n", 100)
	for name, row := range map[string]struct {
		content, query, want string
		status               int
	}{
		"all":                         {"a\nb\nc\n", "", "a\nb\nc\n", 200},
		"the last two lines":          {"a\nb\nc\n", "tailLines=2", "b\nc\n", 200},
		"the last line is incomplete": {"a\nb\nc", "tailLines=2", "b\nc", 200},
		"more than there is":          {"a\nb\n", "tailLines=9", "a\nb\n", 200},
		"no lines":                    {"a\nb\n", "tailLines=0", "", 200},
		"lines across blocks":         {long, "tailLines=70", long[:70000], 200},
		"a limit":                     {"a\nb\nc\n", "limitBytes=3", "a\nb", 200},
		"nothing yet":                 {"", "", "", 200},
		"no previous run":             {"a\n", "previous=true", "no such container\n", 404},
	} {
		path := filepath.Join(t.TempDir(), "0.log")
		if err := os.WriteFile(path, []byte(row.content), 0o600); err != nil {
			t.Fatal(err)
		}
		request := httptest.NewRequest("GET", "/containerLogs/web/one/main?"+row.query, nil)
		request.SetPathValue("namespace", "web")
		request.SetPathValue("pod", "one")
		request.SetPathValue("container", "main")
		recorder := httptest.NewRecorder()
		logs{oneFile{path}}.ServeHTTP(recorder, request)
		if recorder.Code != row.status || recorder.Body.String() != row.want {
			t.Errorf("%s: %d, %.40q", name, recorder.Code, recorder.Body.String())
		}
	}
}

func TestLogsOfTheNode(t *testing.T) {
	folder := t.TempDir()
	if err := os.WriteFile(filepath.Join(folder, "0.log"), []byte("a\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for path, row := range map[string]struct {
		status int
		want   string
	}{
		"/logs/":         {200, "0.log"},
		"/logs/0.log":    {200, "a\n"},
		"/logs/1.log":    {404, ""},
		"/logs/../0.log": {307, ""},
	} {
		response := httptest.NewRecorder()
		handler(oneFile{filepath.Join(folder, "0.log")}).ServeHTTP(response, httptest.NewRequest("GET", path, nil))
		if response.Code != row.status || !strings.Contains(response.Body.String(), row.want) {
			t.Errorf("%s: %d %q", path, response.Code, response.Body)
		}
	}
}
