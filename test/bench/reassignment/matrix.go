package reassignment

// CostMatrix is a square table of costs between machines. The challenge's
// tables are quadratic in the machines but hold few different values, so an
// entry is one byte, an index into the values, until there are more than 256.
type CostMatrix struct {
	size   int
	values []int64
	index  map[int64]int
	narrow []uint8
	wide   []uint32
}

// NewCostMatrix returns a table of zeros for so many machines.
func NewCostMatrix(machines int) *CostMatrix {
	return &CostMatrix{
		size:   machines,
		values: []int64{0},
		index:  map[int64]int{0: 0},
		narrow: make([]uint8, machines*machines),
	}
}

// Set writes the cost of a move from one machine to another.
func (c *CostMatrix) Set(from, to int, cost int64) {
	at := from*c.size + to
	i, known := c.index[cost]
	if !known {
		i = len(c.values)
		c.values = append(c.values, cost)
		c.index[cost] = i
		if i == 256 {
			c.widen()
		}
	}
	if c.wide != nil {
		c.wide[at] = uint32(i)
		return
	}
	c.narrow[at] = uint8(i)
}

// At returns the cost of a move from one machine to another.
func (c *CostMatrix) At(from, to int) int64 {
	if c.wide != nil {
		return c.values[c.wide[from*c.size+to]]
	}
	return c.values[c.narrow[from*c.size+to]]
}

func (c *CostMatrix) widen() {
	c.wide = make([]uint32, len(c.narrow))
	for i, v := range c.narrow {
		c.wide[i] = uint32(v)
	}
	c.narrow = nil
}
