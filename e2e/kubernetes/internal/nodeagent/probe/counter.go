// Package probe asks containers how they are, as the kubelet does.
package probe

import (
	"time"

	v1 "k8s.io/api/core/v1"
)

// Kind says what a probe decides.
type Kind string

// The kinds of probes.
const (
	Readiness Kind = "Readiness"
	Liveness  Kind = "Liveness"
	Startup   Kind = "Startup"
)

// Verdict is what the attempts so far mean.
type Verdict int

// A probe is Undecided until a threshold is first reached.
const (
	Undecided Verdict = iota
	Success
	Failure
)

// Timing is the timing of a probe, with the defaults of the API.
type Timing struct {
	InitialDelay     time.Duration
	Period           time.Duration
	Timeout          time.Duration
	SuccessThreshold int32
	FailureThreshold int32
}

// TimingOf reads the timing of a probe; what is missing or too small becomes
// the API's default.
func TimingOf(probe *v1.Probe) Timing {
	seconds := func(value, otherwise int32) time.Duration {
		return time.Duration(positive(value, otherwise)) * time.Second
	}
	return Timing{
		InitialDelay:     seconds(probe.InitialDelaySeconds, 0),
		Period:           seconds(probe.PeriodSeconds, 10),
		Timeout:          seconds(probe.TimeoutSeconds, 1),
		SuccessThreshold: positive(probe.SuccessThreshold, 1),
		FailureThreshold: positive(probe.FailureThreshold, 3),
	}
}

func positive(value, otherwise int32) int32 {
	if value > 0 {
		return value
	}
	return otherwise
}

// Counter turns outcomes into a verdict: it changes after as many equal
// outcomes in a row as the threshold for them says.
type Counter struct {
	timing  Timing
	verdict Verdict
	last    Verdict
	run     int32
}

// NewCounter starts undecided.
func NewCounter(timing Timing) *Counter {
	return &Counter{timing: timing}
}

// Observe counts an outcome and returns the verdict after it.
func (c *Counter) Observe(success bool) Verdict {
	outcome, threshold := Failure, c.timing.FailureThreshold
	if success {
		outcome, threshold = Success, c.timing.SuccessThreshold
	}
	if outcome != c.last {
		c.last, c.run = outcome, 0
	}
	c.run++
	if c.run >= threshold {
		c.verdict = outcome
	}
	return c.verdict
}
