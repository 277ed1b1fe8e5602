// Package house holds the rules of the tree as tests: which package may import
// which, that every package says what it is for, how long a file may get, and
// that both languages know the same error codes.
//
// The import table is that of docs/DESIGN.md, "Rooms of the house". Imports go
// up the list only; conversations never import each other.
package house
