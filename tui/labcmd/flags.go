package labcmd

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// count is a flag that takes a number from low to high.
type count struct {
	to        *int
	low, high int
}

func (c count) Type() string { return "number" }

func (c count) String() string {
	if c.to == nil || *c.to == 0 {
		return ""
	}
	return strconv.Itoa(*c.to)
}

// Set implements pflag.Value.
func (c count) Set(v string) error {
	n, err := strconv.Atoi(v)
	if err != nil || n < c.low || n > c.high {
		return fmt.Errorf("it is a number from %d to %d", c.low, c.high)
	}
	*c.to = n
	return nil
}

// choice is a flag that takes one of several words.
type choice struct {
	to    *string
	words []string
}

func (c choice) Type() string { return "word" }

func (c choice) String() string {
	if c.to == nil {
		return ""
	}
	return *c.to
}

// Set implements pflag.Value.
func (c choice) Set(v string) error {
	if !slices.Contains(c.words, v) {
		return fmt.Errorf("it is %s", strings.Join(c.words, " or "))
	}
	*c.to = v
	return nil
}
