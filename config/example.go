package config

import _ "embed"

//go:embed example.toml
var example string

// Example is the configuration file to start from: every key with its unit,
// its default and the reason for it.
func Example() string { return example }
