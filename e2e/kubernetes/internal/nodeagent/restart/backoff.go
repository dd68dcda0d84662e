// Package restart says how long a container that ended waits for its next start.
package restart

import "time"

// Policy bounds the waits. The kubelet's own are ten seconds and five minutes.
type Policy struct {
	Initial time.Duration
	Maximum time.Duration
}

// Backoff counts the ends of one container. The zero value has seen none.
type Backoff struct {
	wait time.Duration
}

// Ended returns the wait after a run of the given length: none the first time
// and after a run of twice the maximum wait, then the initial one, doubled
// each time up to the maximum.
func (b *Backoff) Ended(policy Policy, ran time.Duration) time.Duration {
	if ran >= 2*policy.Maximum {
		b.wait = 0
	}
	wait := b.wait
	b.wait = min(max(2*wait, policy.Initial), policy.Maximum)
	return wait
}
