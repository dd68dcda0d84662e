package probe

import (
	"context"
	"time"
)

// Attempt asks once and says if it went well, and what was wrong.
type Attempt func(ctx context.Context, timeout time.Duration) (success bool, message string)

// Observation is what an attempt that counts leaves.
type Observation struct {
	Success bool
	Message string
	Verdict Verdict
}

// Run probes a container that started now, until the context ends.
func Run(ctx context.Context, kind Kind, timing Timing, attempt Attempt, observe func(Observation)) {
	schedule := NewSchedule(timing, time.Now(), kind != Liveness)
	counter := NewCounter(timing)
	timer := time.NewTimer(time.Until(schedule.Next()))
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-timer.C:
		}
		success, message := attempt(ctx, schedule.Timeout(timing.Timeout))
		if ctx.Err() != nil {
			return
		}
		if schedule.Attempted(success, time.Now()) {
			observe(Observation{Success: success, Message: message, Verdict: counter.Observe(success)})
		}
		timer.Reset(time.Until(schedule.Next()))
	}
}
