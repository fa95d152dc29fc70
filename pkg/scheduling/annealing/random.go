package annealing

import "math/bits"

// Random is xoshiro256** (Blackman and Vigna, 2018), seeded by splitmix64. It
// is here so that a seed means the same moves with every Go version.
type Random struct{ s [4]uint64 }

// NewRandom seeds a generator.
func NewRandom(seed uint64) *Random {
	r := &Random{}
	for i := range r.s {
		seed += 0x9e3779b97f4a7c15
		z := seed
		z = (z ^ z>>30) * 0xbf58476d1ce4e5b9
		z = (z ^ z>>27) * 0x94d049bb133111eb
		r.s[i] = z ^ z>>31
	}
	return r
}

// Next returns 64 random bits.
func (r *Random) Next() uint64 {
	s := &r.s
	result := bits.RotateLeft64(s[1]*5, 7) * 9
	t := s[1] << 17
	s[2] ^= s[0]
	s[3] ^= s[1]
	s[1] ^= s[2]
	s[0] ^= s[3]
	s[2] ^= t
	s[3] = bits.RotateLeft64(s[3], 45)
	return result
}

// Below returns a number in [0, n); n must be positive and fit 32 bits.
func (r *Random) Below(n int) int {
	return int((r.Next() >> 32) * uint64(n) >> 32)
}

// Fraction returns a number in (0, 1].
func (r *Random) Fraction() float64 {
	return float64(r.Next()>>11+1) * (1.0 / (1 << 53))
}
