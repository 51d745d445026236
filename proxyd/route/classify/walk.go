package classify

import (
	"slices"
	"strings"

	pg_query "github.com/pganalyze/pg_query_go/v6"
	"google.golang.org/protobuf/reflect/protoreflect"
)

// harmless are the nodes of a raw parse tree that do nothing by themselves:
// what they hold is looked at, and a node that is not here is refused. Those
// with a case of their own in visit are not listed.
var harmless = func() map[protoreflect.Name]bool {
	names := map[protoreflect.Name]bool{}
	for name := range strings.FieldsSeq(`
		List Integer Float Boolean String BitString A_Const ParamRef A_Star A_ArrayExpr A_Indices
		ResTarget BoolExpr NullTest BooleanTest CaseWhen CoalesceExpr MinMaxExpr RowExpr
		TypeCast CollateClause NamedArgExpr SQLValueFunction GroupingFunc GroupingSet WindowDef
		Alias RangeSubselect RangeFunction RangeTableFunc RangeTableFuncCol ColumnDef
		CTESearchClause CTECycleClause XmlExpr XmlSerialize
		JsonFormat JsonReturning JsonValueExpr JsonIsPredicate JsonBehavior JsonOutput JsonArgument
		JsonFuncExpr JsonTable JsonTableColumn JsonTablePathSpec JsonKeyValue JsonParseExpr
		JsonScalarExpr JsonSerializeExpr JsonObjectConstructor JsonArrayConstructor
		JsonArrayQueryConstructor JsonAggConstructor JsonObjectAgg JsonArrayAgg`) {
		names[protoreflect.Name(name)] = true
	}
	return names
}()

// walker gathers from a query what the catalog must be asked. It visits every
// field of every node by reflection, so that none can be forgotten.
type walker struct {
	ctes    []string // the names that WITH gives here
	refs    []ref
	known   map[ref]bool
	refused string
}

func (w *walker) refuse(why string) {
	if w.refused == "" {
		w.refused = why
	}
}

func (w *walker) visit(m protoreflect.Message) {
	if w.refused != "" {
		return
	}
	switch n := m.Interface().(type) {
	case *pg_query.Node: // one of some hundred kinds, which are not tried in turn
		if kind := m.WhichOneof(m.Descriptor().Oneofs().Get(0)); kind != nil {
			w.visit(m.Get(kind).Message())
		}
		return
	case *pg_query.SelectStmt:
		w.query(n)
		return
	case *pg_query.RangeVar:
		w.relation(n)
		return
	case *pg_query.FuncCall:
		w.name(function, n.GetFuncname())
	case *pg_query.TypeName:
		w.typed(n)
	case *pg_query.A_Expr:
		w.expression(n)
	case *pg_query.SubLink:
		w.operator(n.GetOperName())
		if n.GetTestexpr() != nil && len(n.GetOperName()) == 0 {
			w.add(operator, "", "=") // IN
		}
	case *pg_query.SortBy:
		w.operator(n.GetUseOp())
	case *pg_query.CaseExpr:
		if n.GetArg() != nil {
			w.add(operator, "", "=")
		}
	case *pg_query.JoinExpr:
		if n.GetIsNatural() || len(n.GetUsingClause()) > 0 {
			w.add(operator, "", "=")
		}
	case *pg_query.ColumnRef:
		if len(n.GetFields()) > 1 {
			w.attributes(n.GetFields()[1:])
		}
	case *pg_query.A_Indirection:
		w.attributes(n.GetIndirection())
	case *pg_query.RangeTableSample:
		w.sample(n)
	default:
		if name := m.Descriptor().Name(); !harmless[name] {
			w.refuse("holds " + string(name) + ", which is not known to be harmless")
			return
		}
	}
	w.children(m, "")
}

// children visits what a node holds, in the order of its fields, but one.
func (w *walker) children(m protoreflect.Message, except protoreflect.Name) {
	fields := m.Descriptor().Fields()
	for i := range fields.Len() {
		f := fields.Get(i)
		if f.Message() == nil || f.Name() == except || !m.Has(f) {
			continue
		}
		if !f.IsList() {
			w.visit(m.Get(f).Message())
			continue
		}
		list := m.Get(f).List()
		for j := range list.Len() {
			w.visit(list.Get(j).Message())
		}
	}
}

var strengths = map[pg_query.LockClauseStrength]string{
	pg_query.LockClauseStrength_LCS_FORKEYSHARE:    "FOR KEY SHARE",
	pg_query.LockClauseStrength_LCS_FORSHARE:       "FOR SHARE",
	pg_query.LockClauseStrength_LCS_FORNOKEYUPDATE: "FOR NO KEY UPDATE",
	pg_query.LockClauseStrength_LCS_FORUPDATE:      "FOR UPDATE",
}

func (w *walker) query(n *pg_query.SelectStmt) {
	if n.GetIntoClause() != nil {
		w.refuse("is SELECT INTO, which makes a table")
		return
	}
	for _, lock := range n.GetLockingClause() {
		w.refuse("is SELECT ... " + strengths[lock.GetLockingClause().GetStrength()] + ", which locks rows")
		return
	}
	outside := len(w.ctes)
	w.with(n.GetWithClause())
	w.children(n.ProtoReflect(), "with_clause")
	w.ctes = w.ctes[:outside]
}

// with brings the names of a WITH clause into scope: each for those behind it,
// with RECURSIVE for all (PostgreSQL's transformWithClause).
func (w *walker) with(clause *pg_query.WithClause) {
	if clause.GetRecursive() {
		for _, c := range clause.GetCtes() {
			w.ctes = append(w.ctes, c.GetCommonTableExpr().GetCtename())
		}
	}
	for _, c := range clause.GetCtes() {
		cte := c.GetCommonTableExpr()
		if cte.GetCtequery().GetSelectStmt() == nil {
			w.refuse("writes in its WITH clause")
			return
		}
		w.children(cte.ProtoReflect(), "")
		if !clause.GetRecursive() {
			w.ctes = append(w.ctes, cte.GetCtename())
		}
	}
}

func (w *walker) relation(n *pg_query.RangeVar) {
	switch {
	case strings.HasPrefix(n.GetSchemaname(), "pg_temp"):
		w.refuse("reads a temporary table")
	case n.GetSchemaname() == "" && slices.Contains(w.ctes, n.GetRelname()):
	default:
		w.add(relation, n.GetSchemaname(), n.GetRelname())
	}
}

// typed notes a type. %TYPE stands only where functions are made.
func (w *walker) typed(n *pg_query.TypeName) {
	if n.GetPctType() {
		w.refuse("holds %TYPE, which is not known to be harmless")
		return
	}
	w.name(typeName, n.GetNames())
}

// expression notes an operator. BETWEEN is written with its own name in place
// of the operators that it stands for.
func (w *walker) expression(n *pg_query.A_Expr) {
	switch n.GetKind() {
	case pg_query.A_Expr_Kind_AEXPR_BETWEEN, pg_query.A_Expr_Kind_AEXPR_NOT_BETWEEN,
		pg_query.A_Expr_Kind_AEXPR_BETWEEN_SYM, pg_query.A_Expr_Kind_AEXPR_NOT_BETWEEN_SYM:
		for _, op := range []string{"<", "<=", ">", ">="} {
			w.add(operator, "", op)
		}
	default:
		w.operator(n.GetName())
	}
}

func (w *walker) operator(name []*pg_query.Node) {
	if len(name) > 0 {
		w.name(operator, name)
	}
}

// attributes notes the names behind dots.
func (w *walker) attributes(path []*pg_query.Node) {
	for _, step := range path {
		if s := step.GetString_(); s != nil {
			w.add(attribute, "", s.GetSval())
		}
	}
}

// sample lets PostgreSQL's own methods pass: the function of another one is
// called by the executor and not as functions are.
func (w *walker) sample(n *pg_query.RangeTableSample) {
	if m := n.GetMethod(); len(m) != 1 || m[0].GetString_().GetSval() != "bernoulli" && m[0].GetString_().GetSval() != "system" {
		w.refuse("samples a table by a method that is not PostgreSQL's own")
	}
}

// name notes a name that may be qualified; a third part in front is the
// database, which can only be the session's own.
func (w *walker) name(kind refKind, path []*pg_query.Node) {
	var parts []string
	for _, n := range path {
		s := n.GetString_()
		if s == nil {
			w.refuse("holds a name that is not understood")
			return
		}
		parts = append(parts, s.GetSval())
	}
	switch n := len(parts); n {
	case 1:
		w.add(kind, "", parts[0])
	case 2, 3:
		w.add(kind, parts[n-2], parts[n-1])
	default:
		w.refuse("holds a name that is not understood")
	}
}

func (w *walker) add(kind refKind, schema, name string) {
	r := ref{kind, schema, name}
	if w.known == nil {
		w.known = map[ref]bool{}
	}
	if !w.known[r] {
		w.known[r] = true
		w.refs = append(w.refs, r)
	}
}
