package reassignment

// counter counts pairs of small numbers, such as processes of a service on a
// machine. It is an open-addressed table whose size follows the number of
// pairs present, not the product of both ranges.
type counter struct {
	keys   []uint64
	counts []int32
	mask   uint64
}

const emptyKey = ^uint64(0)

// newCounter makes room for so many distinct pairs at once.
func newCounter(pairs int) *counter {
	size := 8
	for size < 4*pairs {
		size *= 2
	}
	c := &counter{keys: make([]uint64, size), counts: make([]int32, size), mask: uint64(size - 1)}
	for i := range c.keys {
		c.keys[i] = emptyKey
	}
	return c
}

func pair(a, b int32) uint64 { return uint64(uint32(a))<<32 | uint64(uint32(b)) }

func (c *counter) home(key uint64) uint64 {
	h := key * 0x9e3779b97f4a7c15
	return (h ^ h>>32) & c.mask
}

func (c *counter) get(key uint64) int32 {
	for i := c.home(key); ; i = (i + 1) & c.mask {
		switch c.keys[i] {
		case key:
			return c.counts[i]
		case emptyKey:
			return 0
		}
	}
}

func (c *counter) increment(key uint64) {
	i := c.home(key)
	for c.keys[i] != key && c.keys[i] != emptyKey {
		i = (i + 1) & c.mask
	}
	c.keys[i] = key
	c.counts[i]++
}

// decrement forgets a pair that reaches zero, so that the table never fills up.
func (c *counter) decrement(key uint64) {
	i := c.home(key)
	for c.keys[i] != key {
		i = (i + 1) & c.mask
	}
	c.counts[i]--
	if c.counts[i] == 0 {
		c.remove(i)
	}
}

// remove closes the gap by moving later entries back (Knuth, 6.4, algorithm R).
func (c *counter) remove(gap uint64) {
	for i := (gap + 1) & c.mask; c.keys[i] != emptyKey; i = (i + 1) & c.mask {
		home := c.home(c.keys[i])
		if (i-home)&c.mask >= (i-gap)&c.mask {
			c.keys[gap], c.counts[gap] = c.keys[i], c.counts[i]
			gap = i
		}
	}
	c.keys[gap] = emptyKey
	c.counts[gap] = 0
}
