// Package statement says of a statement's text the little that a pooler must
// know: whether it begins or ends a transaction, and what it leaves behind in
// the session that another server would not have.
//
// It is a lexer and never a parser: it knows comments, quotes and words. What
// hides in a function or in a string that is executed is not seen.
package statement
