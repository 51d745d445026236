package engine_test

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
)

const module = "github.com/pgtandem/pgtandem/"

// direction is what the code under one folder may not import, and why.
type direction struct {
	from    string // a folder of the repository and all below it
	except  string // a folder in it to which the rule does not apply
	forbids func(imported string) bool
	because string
}

// within matches a package of ours by its folder, and all below it.
func within(folders ...string) func(string) bool {
	return func(imported string) bool {
		ours, ok := strings.CutPrefix(imported, module)
		return ok && slices.ContainsFunc(folders, func(f string) bool { return ours == f || strings.HasPrefix(ours, f+"/") })
	}
}

// oursBut matches every package of ours except those in the folders.
func oursBut(folders ...string) func(string) bool {
	allowed := within(folders...)
	return func(imported string) bool { return strings.HasPrefix(imported, module) && !allowed(imported) }
}

// oneOf matches packages by their import path, with all below them.
func oneOf(paths ...string) func(string) bool {
	return func(imported string) bool {
		return slices.ContainsFunc(paths, func(p string) bool { return imported == p || strings.HasPrefix(imported, p+"/") })
	}
}

// notStandard matches every package that does not come with Go.
func notStandard(imported string) bool {
	first, _, _ := strings.Cut(imported, "/")
	return strings.Contains(first, ".")
}

var impure = oneOf("os", "net", "math/rand", "crypto/rand", "log", "syscall", "io/ioutil", "testing")

const pureBecause = "what decides must give the same answer for the same facts, in production, in the simulator and in a test; facts, clock and chance come in as arguments"

var directions = []direction{
	{from: "engine", forbids: within("proxyd", "tui"),
		because: "the engine keeps the pair alive without knowing who asks or who watches; it reaches the proxy through small interfaces of its own"},
	{from: "engine/cluster", forbids: oursBut(), because: "cluster holds the values that everything else speaks in, so it may know of nothing else"},
	{from: "engine/decide", forbids: oursBut("engine/cluster"), because: "decide turns facts into a decision; how it is planned or done is for others"},
	{from: "engine/plan", forbids: oursBut("engine/cluster", "engine/decide"), because: "a plan is data that is shown before it runs, so it cannot know what runs it"},
	{from: "engine/clock", forbids: oursBut(), because: "time belongs to nobody"},
	{from: "engine/execute", forbids: oursBut("engine/clock", "engine/cluster", "engine/decide", "engine/plan", "engine/execute"),
		because: "execute runs steps; whoever observes, stores or drives is joined to it through its interfaces"},
	{from: "engine/cluster", forbids: impure, because: pureBecause},
	{from: "engine/decide", forbids: impure, because: pureBecause},
	{from: "engine/plan", forbids: impure, because: pureBecause},
	{from: "tui", forbids: func(imported string) bool {
		return within("proxyd")(imported) && !within("proxyd/client", "proxyd/api")(imported)
	}, because: "the console has one door to the daemon, so that whatever it can do curl can do as well, and it can run on another version of the daemon"},
	{from: "tui", except: "tui/labcmd", forbids: within("engine"),
		because: "the console shows what the daemon says and decides nothing; only the command that makes a lab builds one"},
	{from: "tui/labcmd", forbids: func(imported string) bool {
		return within("engine")(imported) && !within("engine/lab")(imported)
	}, because: "a lab is made through engine/lab and by nothing behind its back"},
	{from: "proxyd", forbids: within("tui"), because: "the daemon runs without a console"},
	{from: "proxyd/api", forbids: notStandard, because: "the contract of the control socket must be readable, and importable, without anything of ours"},
	{from: "proxyd/wire", forbids: oursBut("proxyd/wire"), because: "the protocol knows bytes and messages, and nothing of pools, sessions or nodes"},
	{from: "proxyd/auth", forbids: oursBut("proxyd/wire", "proxyd/hba"), because: "a proof is judged by what was said, whatever it was said through"},
	{from: "proxyd/hba", forbids: oursBut(), because: "who may connect from where is decided by what is said of a connection, and by nothing else"},
	{from: "proxyd/relay", forbids: oursBut("proxyd/relay"), because: "the relay moves bytes; what they mean, and who is linked to whom, is for others"},
	{from: "proxyd/route", forbids: oursBut("proxyd/route", "engine/cluster"), because: "where a statement goes is decided from facts; sessions, pools and pollers call it and are not called"},
	{from: "proxyd/route", forbids: oneOf("net", "os", "syscall", "github.com/jackc/pgx/v5"), because: "where a statement goes is decided without sockets; rows of a catalog come through an interface"},
	{from: "proxyd/route/choose", forbids: oursBut("engine/cluster"), because: "choose weighs positions and knows nothing of statements"},
	{from: "proxyd/route/choose", forbids: impure, because: "facts, clock and chance come in as arguments, so that a seed replays a choice"},
	{from: "proxyd/route/classify", forbids: oursBut(), because: "classify judges a text by grammar and catalog, and knows of no node"},
	{from: "proxyd/route/catalog", forbids: oursBut(), because: "catalog reads names and knows neither who asks nor why"},
	{from: "proxyd/handover", forbids: oursBut("proxyd/handover"), because: "descriptors and messages go from one process to the next, whatever they are for"},
	{from: "proxyd/client", forbids: oursBut("proxyd/client", "proxyd/api"), because: "the client speaks to the socket and must not link the daemon"},
	{from: "proxyd/admin", forbids: oursBut("proxyd/admin", "proxyd/api", "proxyd/wire"),
		because: "the console shows and steers the data plane through an interface of its own, so that pools and relays can be replaced under it"},
	{from: "config", forbids: oursBut("config"), because: "the configuration is a leaf that both programs read"},
}

func TestImportDirections(t *testing.T) {
	files := sources(t)
	for _, d := range directions {
		seen := false
		for _, f := range files {
			if f.test || !f.in(d.from) || (d.except != "" && f.in(d.except)) {
				continue
			}
			seen = true
			for _, imported := range f.imports {
				if d.forbids(imported) {
					t.Errorf("%s imports %s.\n\tIt may not: %s.", f.path, imported, d.because)
				}
			}
		}
		if !seen {
			t.Errorf("nothing lies in %s: has the folder moved, and this rule stayed behind?", d.from)
		}
	}
}

// clocks are what gives or waits for the present time.
var clocks = []string{"Now", "Since", "Until", "After", "AfterFunc", "NewTicker", "NewTimer", "Sleep", "Tick"}

func TestThePureCoreHasNoClock(t *testing.T) {
	for _, f := range sources(t) {
		if f.test || !(f.in("engine/cluster") || f.in("engine/decide") || f.in("engine/plan")) {
			continue
		}
		ast.Inspect(f.tree, func(n ast.Node) bool {
			if s, ok := n.(*ast.SelectorExpr); ok && f.packageOf(s) == "time" && slices.Contains(clocks, s.Sel.Name) {
				t.Errorf("%s uses time.%s.\n\tIt may not: %s.", f.place(s), s.Sel.Name, pureBecause)
			}
			return true
		})
	}
}

const (
	mostLinesOfAFile     = 600
	mostLinesOfAFunction = 80
)

// unfinished are the marks people leave for later, put together here so that
// this file does not hold them.
var unfinished = regexp.MustCompile(`\b(TO` + `DO|FIX` + `ME|XX` + `X|HA` + `CK)\b`)

func TestTidy(t *testing.T) {
	for _, f := range sources(t) {
		if lines := f.fset.Position(f.tree.FileEnd).Line; !f.test && lines > mostLinesOfAFile {
			t.Errorf("%s has %d lines, more than %d.\n\tA file is one idea that is read in one go: find the seam and split it.", f.path, lines, mostLinesOfAFile)
		}
		for _, group := range f.tree.Comments {
			for _, c := range group.List {
				if mark := unfinished.FindString(c.Text); mark != "" {
					t.Errorf("%s: %s.\n\tWhat is not done is done now, or it is an issue; a mark in the code is neither.", f.place(c), mark)
				}
			}
		}
		for _, d := range f.tree.Decls {
			fn, ok := d.(*ast.FuncDecl)
			if !ok || f.test {
				continue
			}
			lines := f.fset.Position(fn.End()).Line - f.fset.Position(fn.Pos()).Line + 1
			if lines > mostLinesOfAFunction {
				t.Errorf("%s: %s has %d lines, more than %d.\n\tA function fits a screen; name its parts.", f.place(fn), fn.Name.Name, lines, mostLinesOfAFunction)
			}
		}
	}
}

func TestEveryPackageSaysWhatItIs(t *testing.T) {
	comment := map[string]string{}
	for _, f := range sources(t) {
		if f.test {
			continue
		}
		dir := path.Dir(f.path)
		if _, known := comment[dir]; !known {
			comment[dir] = ""
		}
		if f.tree.Doc != nil {
			comment[dir] += f.tree.Doc.Text()
		}
	}
	for dir, text := range comment {
		if strings.TrimSpace(text) == "" {
			t.Errorf("the package in %s has no comment.\n\tA newcomer learns from it what the package owns and what it must never know.", dir)
		}
	}
}

// TestNoTestSkips keeps "it passed" from meaning "it did not run".
func TestNoTestSkips(t *testing.T) {
	for _, f := range sources(t) {
		if !f.test {
			continue
		}
		testers := f.testers()
		ast.Inspect(f.tree, func(n ast.Node) bool {
			s, ok := n.(*ast.SelectorExpr)
			if !ok {
				return true
			}
			of, named := s.X.(*ast.Ident)
			skips := named && testers[of.Name] && slices.Contains([]string{"Skip", "Skipf", "SkipNow"}, s.Sel.Name)
			if skips || f.packageOf(s) == "testing" && s.Sel.Name == "Short" {
				t.Errorf("%s: %s.\n\tA test that cannot run here is a failure: make test installs what it needs.", f.place(s), s.Sel.Name)
			}
			return true
		})
	}
}

// testers gives the names under which the file's functions get a *testing.T,
// *testing.B, *testing.F or testing.TB: other types may have a Skip of their
// own.
func (s source) testers() map[string]bool {
	names := map[string]bool{}
	ast.Inspect(s.tree, func(n ast.Node) bool {
		field, ok := n.(*ast.Field)
		if !ok {
			return true
		}
		kind := field.Type
		if pointer, ok := kind.(*ast.StarExpr); ok {
			kind = pointer.X
		}
		if of, ok := kind.(*ast.SelectorExpr); ok && s.packageOf(of) == "testing" {
			for _, name := range field.Names {
				names[name.Name] = true
			}
		}
		return true
	})
	return names
}

// source is one Go file of the repository.
type source struct {
	path    string // from the top of the repository, with slashes
	test    bool
	tree    *ast.File
	fset    *token.FileSet
	imports []string
	names   map[string]string // what the file calls a package -> its import path
}

func (s source) in(folder string) bool { return strings.HasPrefix(s.path, folder+"/") }

func (s source) place(n ast.Node) string {
	return s.path + ":" + strconv.Itoa(s.fset.Position(n.Pos()).Line)
}

// packageOf gives the import path of the package that x.Sel is of; "" where x
// is no package.
func (s source) packageOf(x *ast.SelectorExpr) string {
	if id, ok := x.X.(*ast.Ident); ok {
		return s.names[id.Name]
	}
	return ""
}

// sources parses every Go file below the folder that holds go.mod.
func sources(t *testing.T) []source {
	t.Helper()
	top := repository(t)
	var out []source
	err := filepath.WalkDir(top, func(p string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(top, p)
		if err != nil {
			return err
		}
		if d.IsDir() {
			if rel != "." && (strings.HasPrefix(d.Name(), ".") || d.Name() == "testdata" || rel == "bin") {
				return filepath.SkipDir
			}
			return nil
		}
		if strings.HasSuffix(p, ".go") {
			out = append(out, parse(t, p, filepath.ToSlash(rel)))
		}
		return nil
	})
	if err != nil {
		t.Fatalf("read the repository: %v", err)
	}
	return out
}

func parse(t *testing.T, file, rel string) source {
	t.Helper()
	s := source{path: rel, test: strings.HasSuffix(rel, "_test.go"), fset: token.NewFileSet(), names: map[string]string{}}
	tree, err := parser.ParseFile(s.fset, file, nil, parser.ParseComments)
	if err != nil {
		t.Fatalf("parse %s: %v", rel, err)
	}
	s.tree = tree
	for _, spec := range tree.Imports {
		imported, err := strconv.Unquote(spec.Path.Value)
		if err != nil {
			t.Fatalf("parse %s: import %s: %v", rel, spec.Path.Value, err)
		}
		s.imports = append(s.imports, imported)
		name := path.Base(imported)
		if spec.Name != nil {
			name = spec.Name.Name
		}
		s.names[name] = imported
	}
	return s
}

func repository(t *testing.T) string {
	t.Helper()
	dir, err := os.Getwd()
	if err != nil {
		t.Fatal(err)
	}
	for ; ; dir = filepath.Dir(dir) {
		if _, err := os.Stat(filepath.Join(dir, "go.mod")); err == nil {
			return dir
		}
		if dir == filepath.Dir(dir) {
			t.Fatal("no go.mod above this package")
		}
	}
}
