package restart

import (
	"slices"
	"testing"
	"time"
)

func TestWaits(t *testing.T) {
	kubelet := Policy{Initial: 10 * time.Second, Maximum: 300 * time.Second}
	for name, row := range map[string]struct {
		policy Policy
		ran    []time.Duration
		want   []time.Duration
	}{
		"the first restart is at once, then the wait doubles": {
			kubelet, seconds(1, 1, 1, 1), seconds(0, 10, 20, 40),
		},
		"no wait is longer than the maximum": {
			kubelet, seconds(1, 1, 1, 1, 1, 1, 1, 1), seconds(0, 10, 20, 40, 80, 160, 300, 300),
		},
		"a long run makes good": {
			kubelet, seconds(1, 1, 599, 600, 1), seconds(0, 10, 20, 0, 10),
		},
		"an initial wait above the maximum is cut": {
			Policy{Initial: 10 * time.Second, Maximum: time.Second}, seconds(0, 0, 0), seconds(0, 1, 1),
		},
		"without an initial wait there is none": {
			Policy{Maximum: time.Minute}, seconds(1, 1, 1), seconds(0, 0, 0),
		},
	} {
		var backoff Backoff
		var got []time.Duration
		for _, ran := range row.ran {
			got = append(got, backoff.Ended(row.policy, ran))
		}
		if !slices.Equal(got, row.want) {
			t.Errorf("%s: %v, want %v", name, got, row.want)
		}
	}
}

func seconds(numbers ...int) []time.Duration {
	var all []time.Duration
	for _, number := range numbers {
		all = append(all, time.Duration(number)*time.Second)
	}
	return all
}
