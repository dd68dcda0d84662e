package probe

import (
	"context"
	"net"
	"net/http"
	"net/http/httptest"
	"strconv"
	"testing"
	"time"

	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
)

func TestAVerdictChangesAtItsThreshold(t *testing.T) {
	const undecided, success, failure = "u", "s", "f"
	names := map[Verdict]string{Undecided: undecided, Success: success, Failure: failure}
	for name, row := range map[string]struct {
		success, failure int32
		outcomes, want   string
	}{
		"one success is enough by default":        {1, 3, "s", "s"},
		"three failures in a row by default":      {1, 3, "sfff", "sssf"},
		"a success between starts anew":           {1, 3, "sffsfff", "ssssssf"},
		"undecided until a threshold is reached":  {2, 3, "ffsss", "uuuss"},
		"back only after enough successes":        {2, 1, "ssfss", "usffs"},
		"alternation below thresholds is nothing": {2, 2, "sfsfsf", "uuuuuu"},
	} {
		counter := NewCounter(Timing{SuccessThreshold: row.success, FailureThreshold: row.failure})
		got := ""
		for _, outcome := range row.outcomes {
			got += names[counter.Observe(outcome == 's')]
		}
		if got != row.want {
			t.Errorf("%s: %s gives %s, want %s", name, row.outcomes, got, row.want)
		}
	}
}

func TestTimingHasTheDefaultsOfTheAPI(t *testing.T) {
	want := Timing{Period: 10 * time.Second, Timeout: time.Second, SuccessThreshold: 1, FailureThreshold: 3}
	if got := TimingOf(&v1.Probe{}); got != want {
		t.Errorf("%+v, want %+v", got, want)
	}
}

func TestSchedule(t *testing.T) {
	start := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	// Each attempt: when it is due, how long it takes, its outcome, if it counts.
	type attempt struct {
		due, takes      int
		success, counts bool
	}
	timing := Timing{InitialDelay: 2 * time.Second, Period: time.Second}
	for name, row := range map[string]struct {
		eager    bool
		attempts []attempt
	}{
		"after the delay, then each period": {
			false, []attempt{{2000, 1, false, true}, {3000, 1, true, true}, {4000, 1, false, true}},
		},
		"what takes too long skips": {
			false, []attempt{{2000, 2500, false, true}, {5000, 1000, true, true}, {7000, 1, true, true}},
		},
		"early attempts come in growing pauses and do not count": {
			true, []attempt{
				{2000, 0, false, true}, {2010, 0, false, false}, {2030, 0, false, false}, {2070, 0, false, false},
				{2150, 0, false, false}, {2310, 0, false, false}, {2510, 0, false, false}, {2710, 0, false, false},
				{2910, 0, false, false}, {3000, 0, false, true}, {3200, 0, false, false},
			},
		},
		"a success ends early attempts and counts": {
			true, []attempt{{2000, 0, false, true}, {2010, 0, true, true}, {3000, 0, false, true}, {4000, 0, true, true}},
		},
	} {
		schedule := NewSchedule(timing, start, row.eager)
		for number, attempt := range row.attempts {
			due := start.Add(time.Duration(attempt.due) * time.Millisecond)
			if got := schedule.Next(); !got.Equal(due) {
				t.Errorf("%s: attempt %d is due after %v, want %v", name, number, got.Sub(start), due.Sub(start))
			}
			if got := schedule.Timeout(time.Second); (got == time.Second) != (due.Equal(schedule.regular)) {
				t.Errorf("%s: attempt %d has the timeout %v", name, number, got)
			}
			now := due.Add(time.Duration(attempt.takes) * time.Millisecond)
			if got := schedule.Attempted(attempt.success, now); got != attempt.counts {
				t.Errorf("%s: attempt %d counts: %v", name, number, got)
			}
		}
	}
}

func TestAttempts(t *testing.T) {
	server := httptest.NewServer(http.HandlerFunc(func(writer http.ResponseWriter, request *http.Request) {
		if request.URL.Path != "/ready" {
			writer.WriteHeader(http.StatusServiceUnavailable)
		}
	}))
	defer server.Close()
	host, text, err := net.SplitHostPort(server.Listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	port, err := strconv.Atoi(text)
	if err != nil {
		t.Fatal(err)
	}
	target := Target{
		Address:   host,
		Container: &v1.Container{Ports: []v1.ContainerPort{{Name: "web", ContainerPort: int32(port)}}},
		Exec: func(_ context.Context, command []string) (bool, string) {
			return command[0] == "true", ""
		},
	}
	get := func(path string, port intstr.IntOrString) v1.ProbeHandler {
		return v1.ProbeHandler{HTTPGet: &v1.HTTPGetAction{Path: path, Port: port}}
	}
	for name, row := range map[string]struct {
		handler v1.ProbeHandler
		want    bool
	}{
		"HTTP 200":           {get("/ready", intstr.FromInt(port)), true},
		"HTTP by named port": {get("/ready", intstr.FromString("web")), true},
		"HTTP 503":           {get("/", intstr.FromInt(port)), false},
		"HTTP unknown port":  {get("/ready", intstr.FromString("other")), false},
		"HTTP nobody there":  {get("/ready", intstr.FromInt(1)), false},
		"TCP":                {v1.ProbeHandler{TCPSocket: &v1.TCPSocketAction{Port: intstr.FromInt(port)}}, true},
		"TCP nobody there":   {v1.ProbeHandler{TCPSocket: &v1.TCPSocketAction{Port: intstr.FromInt(1)}}, false},
		"exec true":          {v1.ProbeHandler{Exec: &v1.ExecAction{Command: []string{"true"}}}, true},
		"exec false":         {v1.ProbeHandler{Exec: &v1.ExecAction{Command: []string{"false"}}}, false},
		"gRPC nobody there":  {v1.ProbeHandler{GRPC: &v1.GRPCAction{Port: 1}}, false},
		"no handler":         {v1.ProbeHandler{}, false},
	} {
		got, message := target.Attempt(row.handler)(t.Context(), time.Second)
		if got != row.want || (!got && message == "" && name != "exec false") {
			t.Errorf("%s: %v, %q", name, got, message)
		}
	}
}
