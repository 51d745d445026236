package main

import (
	"cmp"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// A graft is what makes one build hold every bug: a function that some variant
// changes gets a copy for that variant, with the bug in it, and begins by asking
// which variant is alive. The environment says so (see alive).

// variant is a set of bugs that live together.
type variant struct {
	number int // above 0, which is the engine as it is
	bugs   []bug
}

// alive is the file that every changed package gets.
const alive = `package %s

import (
	"os"
	"strconv"
)

// planted is the variant that is alive.
var planted, _ = strconv.Atoi(os.Getenv("PLANTED"))
`

// edit replaces a piece of a text.
type edit struct {
	from, to int
	text     string
}

// apply makes edits that do not overlap.
func apply(text string, edits []edit) string {
	slices.SortStableFunc(edits, func(a, b edit) int { return cmp.Compare(b.from, a.from) })
	for _, e := range edits {
		text = text[:e.from] + e.text + text[e.to:]
	}
	return text
}

// graft gives the texts of the files that hold all variants, by their paths from
// the root of the repository.
func graft(variants []variant) (map[string]string, error) {
	stocks := map[string]*stock{}
	for _, v := range variants {
		changed := map[*ast.FuncDecl][]edit{}
		in := map[*ast.FuncDecl]*stock{}
		for _, b := range v.bugs {
			st, err := stockOf(stocks, b.file)
			if err != nil {
				return nil, fmt.Errorf("plant %q: %w", b.name, err)
			}
			f, e, err := st.place(b)
			if err != nil {
				return nil, fmt.Errorf("plant %q: %w", b.name, err)
			}
			changed[f], in[f] = append(changed[f], e), st
		}
		for f, edits := range changed {
			in[f].add(f, v.number, edits)
		}
	}
	texts := map[string]string{}
	for path, st := range stocks {
		texts[path] = apply(st.text, st.edits) + strings.Join(st.copies, "\n")
		texts[filepath.Join(filepath.Dir(path), "planted_alive.go")] = fmt.Sprintf(alive, st.file.Name.Name)
	}
	return texts, nil
}

// stock is a file that bugs are grafted upon.
type stock struct {
	text   string
	file   *ast.File
	seen   map[*ast.FuncDecl][]string // its arguments, once they all have names
	edits  []edit
	copies []string
}

func stockOf(all map[string]*stock, path string) (*stock, error) {
	if st, ok := all[path]; ok {
		return st, nil
	}
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("read the file: %w", err)
	}
	// Positions in a set that holds one file begin at 1.
	file, err := parser.ParseFile(token.NewFileSet(), path, text, parser.SkipObjectResolution)
	if err != nil {
		return nil, fmt.Errorf("parse the file: %w", err)
	}
	all[path] = &stock{text: string(text), file: file, seen: map[*ast.FuncDecl][]string{}}
	return all[path], nil
}

func offset(p token.Pos) int { return int(p) - 1 }

// place finds the function that a bug changes, and the change.
func (st *stock) place(b bug) (*ast.FuncDecl, edit, error) {
	if n := strings.Count(st.text, b.old); n != 1 {
		return nil, edit{}, fmt.Errorf("its place occurs %d times in %s: %q", n, b.file, b.old)
	}
	from := strings.Index(st.text, b.old)
	to := from + len(b.old)
	for _, d := range st.file.Decls {
		if f, ok := d.(*ast.FuncDecl); ok && f.Body != nil && offset(f.Body.Lbrace) < from && to <= offset(f.Body.Rbrace) {
			return f, edit{from, to, b.new}, nil
		}
	}
	return nil, edit{}, fmt.Errorf("its place in %s is not in the body of a function: %q", b.file, b.old)
}

// add makes the copy of a function for a variant, and has the function call it.
func (st *stock) add(f *ast.FuncDecl, number int, edits []edit) {
	name := fmt.Sprintf("%sPlanted%d", f.Name.Name, number)
	begin, end := offset(f.Pos()), offset(f.End())
	if f.Doc != nil {
		begin = offset(f.Type.Func)
	}
	edits = append(edits, edit{offset(f.Name.Pos()), offset(f.Name.End()), name})
	for i := range edits {
		edits[i].from -= begin
		edits[i].to -= begin
	}
	st.copies = append(st.copies, "\n"+apply(st.text[begin:end], edits)+"\n")

	args, seen := st.seen[f]
	if !seen {
		args = st.named(f)
		st.seen[f] = args
	}
	call := name + "(" + strings.Join(args[1:], ", ") + ")"
	if args[0] != "" {
		call = args[0] + "." + call
	}
	if f.Type.Results != nil {
		call = "return " + call
	} else {
		call += "; return"
	}
	at := offset(f.Body.Lbrace) + 1
	st.edits = append(st.edits, edit{at, at, fmt.Sprintf(" if planted == %d { %s };", number, call)})
}

// named gives names to the parameters that have none, and lists all as they are
// passed on, the receiver first.
func (st *stock) named(f *ast.FuncDecl) []string {
	args := []string{""}
	name := func(fields *ast.FieldList, first int) {
		for _, field := range fields.List {
			more := ""
			if _, ok := field.Type.(*ast.Ellipsis); ok {
				more = "..."
			}
			if len(field.Names) == 0 {
				at := offset(field.Type.Pos())
				own := fmt.Sprintf("planted%d", len(args)+first)
				st.edits = append(st.edits, edit{at, at, own + " "})
				args = append(args, own+more)
			}
			for _, n := range field.Names {
				own := n.Name
				if own == "_" {
					own = fmt.Sprintf("planted%d", len(args)+first)
					st.edits = append(st.edits, edit{offset(n.Pos()), offset(n.End()), own})
				}
				args = append(args, own+more)
			}
		}
	}
	if f.Recv != nil {
		name(f.Recv, 100)
		args = args[1:]
	}
	name(f.Type.Params, 0)
	return args
}
