// Package present turns what the control socket says into rows and lines of
// text: the tables, sentences and charts that the interactive screens and
// --batch share, so that both say the same in the same words.
//
// It is pure. It must never know a terminal, a key, a colour or a clock: what
// a piece of text means is said by its Tone, and the present moment comes in
// as an argument. Nothing is told by a tone alone; the words say it too.
package present
