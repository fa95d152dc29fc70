package planner

// random is splitmix64 (Steele, Lea and Flood, 2014). It is here so that a seed
// means the same plan with every Go version.
type random struct{ state uint64 }

func (r *random) next() uint64 {
	r.state += 0x9e3779b97f4a7c15
	z := r.state
	z = (z ^ z>>30) * 0xbf58476d1ce4e5b9
	z = (z ^ z>>27) * 0x94d049bb133111eb
	return z ^ z>>31
}

// below returns a number in [0, n); n must be positive and fit 32 bits.
func (r *random) below(n int) int { return int((r.next() >> 32) * uint64(n) >> 32) }

// fraction returns a number in [0, 1).
func (r *random) fraction() float64 { return float64(r.next()>>11) * (1.0 / (1 << 53)) }
