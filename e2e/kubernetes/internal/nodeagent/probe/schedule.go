package probe

import "time"

// Schedule says when a probe is tried: after the initial delay, then once per
// period.
//
// A probe whose first success is awaited is tried more often in between, since
// a Pod should not have to wait for the next period because it was asked a few
// milliseconds too early. A failure of such an early attempt does not count.
type Schedule struct {
	period  time.Duration
	regular time.Time
	early   time.Time
	pause   time.Duration
}

// NewSchedule starts the schedule of a container that started at the given
// time. With eager set, it tries early until the first success.
func NewSchedule(timing Timing, started time.Time, eager bool) *Schedule {
	schedule := &Schedule{period: timing.Period, regular: started.Add(timing.InitialDelay)}
	if eager {
		schedule.pause = firstPause
	}
	return schedule
}

// Next is when the next attempt is due.
func (s *Schedule) Next() time.Time {
	if s.isEarly() {
		return s.early
	}
	return s.regular
}

// Timeout is that of the next attempt: an early one gives up soon, for a
// packet lost while the Pod starts should not cost it a second.
func (s *Schedule) Timeout(timeout time.Duration) time.Duration {
	if s.isEarly() {
		return min(timeout, earlyTimeout)
	}
	return timeout
}

func (s *Schedule) isEarly() bool {
	return !s.early.IsZero() && s.early.Before(s.regular)
}

// Attempted notes the outcome of the attempt that was due, which ended now,
// and says if it counts.
func (s *Schedule) Attempted(success bool, now time.Time) bool {
	regular := !s.isEarly()
	if regular {
		s.regular = s.regular.Add(s.period)
		for !s.regular.After(now) {
			s.regular = s.regular.Add(s.period)
		}
	}
	s.early = time.Time{}
	if success {
		s.pause = 0
	}
	if s.pause > 0 {
		s.early = now.Add(s.pause)
		s.pause = min(2*s.pause, longestPause)
	}
	return regular || success
}

const (
	firstPause   = 10 * time.Millisecond
	longestPause = 200 * time.Millisecond
	earlyTimeout = 250 * time.Millisecond
)
