// Package batch is the console without a screen: one command, or a file of
// them, with data on stdout, messages and progress on stderr, and an exit code
// that says what a script may do next.
//
// What acts and what only looks are two interfaces; a dry run is handed only
// the one without methods that change anything, so it is the same code that
// plans and cannot be the code that acts. The package must never know a
// socket's path or a screen, and never asks where nobody can answer.
package batch
