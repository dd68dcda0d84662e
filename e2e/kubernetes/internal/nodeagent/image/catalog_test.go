package image

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

func TestAnImageIsFoundByItsName(t *testing.T) {
	catalog, err := ParseCatalog([]string{"agnhost=/lab/agnhost pause", "lab.test:5000/tools/sh=/bin/sh", "sh=/bin/dash"})
	if err != nil {
		t.Fatal(err)
	}
	for image, want := range map[string]string{
		"agnhost":                             "/lab/agnhost",
		"agnhost:2.53":                        "/lab/agnhost",
		"registry.test/e2e/agnhost:2.53":      "/lab/agnhost",
		"registry.test:5000/agnhost":          "/lab/agnhost",
		"agnhost@sha256:00":                   "/lab/agnhost",
		"registry.test/agnhost:1@sha256:00":   "/lab/agnhost",
		"lab.test:5000/tools/sh:1":            "/bin/sh",
		"elsewhere.test/sh":                   "/bin/dash",
		"nginx":                               "",
		"registry.test/agnhost/nginx:agnhost": "",
	} {
		program, err := catalog.Find(image)
		if want == "" {
			if err == nil || !strings.Contains(err.Error(), "known images are agnhost, lab.test:5000/tools/sh, sh") {
				t.Errorf("%s: %v, %v", image, program, err)
			}
			continue
		}
		if err != nil || program.Entrypoint != want {
			t.Errorf("%s: %v, %v", image, program, err)
		}
	}
}

func TestEntriesThatAreRefused(t *testing.T) {
	for _, entries := range [][]string{{"agnhost"}, {"=/bin/sh"}, {"sh="}, {"sh= "}, {"sh=/bin/sh", "sh=/bin/dash"}} {
		if _, err := ParseCatalog(entries); err == nil {
			t.Errorf("%q is taken", entries)
		}
	}
}

func TestCommandAndArgsReplaceWhatTheImageHas(t *testing.T) {
	program := Program{Entrypoint: "/lab/agnhost", Arguments: []string{"pause"}}
	for _, row := range []struct {
		command, args, want string
	}{
		{"", "", "/lab/agnhost pause"},
		{"", "netexec --http-port=80", "/lab/agnhost netexec --http-port=80"},
		{"/agnhost netexec", "", "/lab/agnhost netexec"},
		{"/agnhost", "netexec", "/lab/agnhost netexec"},
		{"sh -c", "true", "sh -c true"},
	} {
		got := program.Command(strings.Fields(row.command), strings.Fields(row.args))
		if !slices.Equal(got, strings.Fields(row.want)) {
			t.Errorf("command %q, args %q: %q, want %q", row.command, row.args, got, row.want)
		}
	}
}

func TestAnImageThatIsADirectoryHasItsProgramsThere(t *testing.T) {
	catalog, err := ParseCatalog([]string{"foghorn=/lab/image/"})
	if err != nil {
		t.Fatal(err)
	}
	program, err := catalog.Find("registry.test/foghorn:0.1.0")
	if err != nil {
		t.Fatal(err)
	}
	got := program.Command([]string{"/foghorn-proxy"}, []string{"--log-level=info"})
	if want := []string{"/lab/image/foghorn-proxy", "--log-level=info"}; !slices.Equal(got, want) {
		t.Errorf("%q, want %q", got, want)
	}
}

func TestTheFilesOfAnImage(t *testing.T) {
	directory := t.TempDir()
	program := filepath.Join(directory, "tool")
	beside := program + ".files"
	if got := (Program{Entrypoint: program}).Files(); !slices.Equal(got, []string{program}) {
		t.Errorf("a program alone: %q", got)
	}
	if err := os.Mkdir(beside, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(beside, "key"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if got := (Program{Entrypoint: program}).Files(); !slices.Equal(got, []string{program, filepath.Join(beside, "key")}) {
		t.Errorf("a program with a file: %q", got)
	}
	if got := (Program{Entrypoint: "sh"}).Files(); len(got) != 0 {
		t.Errorf("a program of the search path: %q", got)
	}
}
