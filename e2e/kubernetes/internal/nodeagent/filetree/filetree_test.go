package filetree

import (
	"maps"
	"os"
	"path/filepath"
	"slices"
	"testing"
)

func TestOpenedDirectories(t *testing.T) {
	machine := []string{"/etc", "/etc/hosts", "/run", "/data", "/data/old"}
	for name, row := range map[string]struct {
		targets []string
		want    []string
	}{
		"nothing":                            {nil, []string{"/"}},
		"a place that exists":                {[]string{"/etc/hosts"}, []string{"/"}},
		"a new place at the top":             {[]string{"/volume"}, []string{"/"}},
		"a new place in a directory":         {[]string{"/etc/coredns"}, []string{"/", "/etc"}},
		"a new place in new directories":     {[]string{"/run/secrets/account"}, []string{"/", "/run", "/run/secrets"}},
		"a new place inside another mount":   {[]string{"/data", "/data/new/one"}, []string{"/"}},
		"a new place beside another mount":   {[]string{"/data/old", "/data/older"}, []string{"/", "/data"}},
		"a new place in a new mount's place": {[]string{"/data/new", "/data/new/one"}, []string{"/", "/data"}},
	} {
		var mounts []Mount
		for _, target := range row.targets {
			mounts = append(mounts, Mount{Target: target})
		}
		open := opened(mounts, func(path string) bool { return slices.Contains(machine, path) })
		if got := slices.Sorted(maps.Keys(open)); !slices.Equal(got, row.want) {
			t.Errorf("%s: %q, not %q", name, got, row.want)
		}
	}
}

func TestLinksAreFollowedInTargets(t *testing.T) {
	directory := t.TempDir()
	for link, target := range map[string]string{
		"run": "real", "absolute": filepath.Join(directory, "real"), "dangling": "real/none", "one": "two", "two": "one",
	} {
		if err := os.Symlink(target, filepath.Join(directory, link)); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Mkdir(filepath.Join(directory, "real"), 0o755); err != nil {
		t.Fatal(err)
	}
	for given, want := range map[string]string{
		"real/x": "real/x", "run": "real", "run/secrets/x": "real/secrets/x", "absolute/x": "real/x",
		"dangling": "real/none", "run/../run/x": "real/x", "new/run": "new/run",
	} {
		got, err := resolve(filepath.Join(directory, given), 0)
		if err != nil || got != filepath.Join(directory, want) {
			t.Errorf("%s: %s, %v", given, got, err)
		}
	}
	if got, err := resolve(filepath.Join(directory, "one"), 0); err == nil {
		t.Errorf("a loop ends at %s", got)
	}
}

func TestMountsAboveComeFirst(t *testing.T) {
	sorted, err := resolved([]Mount{{Target: "/none/b/c"}, {Target: "/none"}, {Target: "/none/b/"}})
	if err != nil || sorted[0].Target != "/none" || sorted[1].Target != "/none/b" || sorted[2].Target != "/none/b/c" {
		t.Errorf("%v, %v", sorted, err)
	}
}
