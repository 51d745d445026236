package classify

import (
	"strings"

	pg_query "github.com/pganalyze/pg_query_go/v6"
)

func write(why string) facts { return facts{verdict: Verdict{Kind: Write, Reason: why}} }
func local(why string) facts { return facts{verdict: Verdict{Kind: Local, Reason: why}} }

// look has the grammar take a text apart. Whatever happens in it, the answer
// is at worst that the primary is needed.
func look(text string) (found facts) {
	defer func() {
		if recover() != nil {
			found = write("is not understood: the parser gave up")
		}
	}()
	tree, err := parse(text)
	if err != nil {
		// The error may hold a part of the text, and that a secret.
		return write("is not understood by the grammar of PostgreSQL 17")
	}
	statements := tree.GetStmts()
	switch len(statements) {
	case 0:
		return facts{verdict: Verdict{Kind: Read}}
	case 1:
		return statement(statements[0].GetStmt())
	}
	return several(statements)
}

// several statements in one text run as one transaction, on one server. They
// are reads when each of them is.
func several(statements []*pg_query.RawStmt) facts {
	all := facts{verdict: Verdict{Kind: Read}}
	for _, s := range statements {
		f := statement(s.GetStmt())
		if f.verdict.Kind != Read {
			f.refs, f.verdict.Kind = nil, Write
			f.verdict.Reason = "has several statements, of which one " + f.verdict.Reason
			return f
		}
		all.refs = append(all.refs, f.refs...)
	}
	return all
}

func statement(n *pg_query.Node) facts {
	switch s := n.GetNode().(type) {
	case *pg_query.Node_SelectStmt:
		return query(s.SelectStmt)
	case *pg_query.Node_ExplainStmt:
		if q := s.ExplainStmt.GetQuery().GetSelectStmt(); q != nil {
			return query(q)
		}
		f := write("is EXPLAIN of what is no plain query")
		f.verdict.Schema = true // CREATE TABLE AS may be what it runs
		return f
	case *pg_query.Node_CopyStmt:
		return copied(s.CopyStmt)
	case *pg_query.Node_TransactionStmt:
		return transaction(s.TransactionStmt)
	case *pg_query.Node_VariableShowStmt:
		return local("is SHOW, whose answer is that of one server")
	case *pg_query.Node_VariableSetStmt, *pg_query.Node_ConstraintsSetStmt:
		return local("is SET, which changes one server session")
	case *pg_query.Node_InsertStmt, *pg_query.Node_UpdateStmt, *pg_query.Node_DeleteStmt, *pg_query.Node_MergeStmt:
		return write("writes behind its WITH clause")
	}
	return write("is a statement that is not known to be harmless")
}

func query(q *pg_query.SelectStmt) facts {
	var w walker
	w.visit(q.ProtoReflect())
	if w.refused != "" {
		f := write(w.refused)
		f.verdict.Schema = q.GetIntoClause() != nil
		return f
	}
	return facts{verdict: Verdict{Kind: Read}, refs: w.refs}
}

// copied judges COPY: only what is sent to the client is a read.
func copied(c *pg_query.CopyStmt) facts {
	switch {
	case c.GetIsFrom():
		return write("is COPY FROM, which writes")
	case c.GetIsProgram() || c.GetFilename() != "":
		return write("is COPY to a file or a program of the server")
	case c.GetRelation() != nil:
		var w walker
		w.relation(c.GetRelation())
		if w.refused != "" {
			return write(w.refused)
		}
		return facts{verdict: Verdict{Kind: Read}, refs: w.refs}
	}
	if q := c.GetQuery().GetSelectStmt(); q != nil {
		return query(q)
	}
	return write("is COPY of what is no plain query")
}

func transaction(t *pg_query.TransactionStmt) facts {
	switch t.GetKind() {
	case pg_query.TransactionStmtKind_TRANS_STMT_BEGIN, pg_query.TransactionStmtKind_TRANS_STMT_START:
		return begun(t.GetOptions())
	case pg_query.TransactionStmtKind_TRANS_STMT_COMMIT, pg_query.TransactionStmtKind_TRANS_STMT_ROLLBACK,
		pg_query.TransactionStmtKind_TRANS_STMT_SAVEPOINT, pg_query.TransactionStmtKind_TRANS_STMT_RELEASE,
		pg_query.TransactionStmtKind_TRANS_STMT_ROLLBACK_TO:
		return local("ends or marks a transaction, and none is open")
	}
	f := write("is a step of a two-phase commit, which writes")
	f.verdict.Schema = true // whatever was prepared may have
	return f
}

// begun judges BEGIN by its options. One that is said twice with different
// values counts as the less harmless.
func begun(options []*pg_query.Node) facts {
	readOnly := false
	for _, o := range options {
		d := o.GetDefElem()
		switch d.GetDefname() {
		case "transaction_read_only":
			if d.GetArg().GetAConst().GetIval().GetIval() == 0 {
				return facts{verdict: Verdict{Kind: BeginWrite, Reason: "begins a transaction READ WRITE"}}
			}
			readOnly = true
		case "transaction_isolation":
			if strings.EqualFold(d.GetArg().GetAConst().GetSval().GetSval(), "serializable") {
				return facts{verdict: Verdict{Kind: BeginWrite, Reason: "begins a transaction SERIALIZABLE, which a standby refuses"}}
			}
		}
	}
	if readOnly {
		return facts{verdict: Verdict{Kind: BeginRead}}
	}
	return facts{verdict: Verdict{Kind: Begin, Reason: "begins a transaction that was not said to be READ ONLY"}}
}
