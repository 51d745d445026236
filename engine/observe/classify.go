package observe

import (
	"context"
	"errors"
	"io"
	"net"
	"os"
	"syscall"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/pgtandem/pgtandem/engine/cluster"
)

// classify tells how an attempt ended. The SQLSTATEs of class 57P are those of
// a server that comes or goes (PostgreSQL docs, appendix A).
//
// What is neither the network's doing nor an answer is a matter between us and
// the server, such as a certificate or a password file of ours. It counts as
// rejected, because it must never pass for a server that is gone.
func classify(err error) cluster.Reach {
	var pgErr *pgconn.PgError
	var netErr net.Error
	var dns *net.DNSError
	switch {
	case errors.As(err, &pgErr):
		switch pgErr.Code {
		case "57P01", "57P02", "57P03":
			return cluster.ReachStarting
		}
		return cluster.ReachRejected
	case errors.Is(err, syscall.ECONNREFUSED):
		return cluster.ReachRefused
	case errors.Is(err, context.DeadlineExceeded), errors.Is(err, os.ErrDeadlineExceeded), errors.As(err, &netErr) && netErr.Timeout():
		return cluster.ReachTimeout
	case cut(err), errors.As(err, &dns):
		return cluster.ReachBroken
	}
	return cluster.ReachRejected
}

// cut: the network says that there is no path, or no more.
func cut(err error) bool {
	for _, e := range []error{io.EOF, io.ErrUnexpectedEOF, net.ErrClosed, syscall.ECONNRESET, syscall.ECONNABORTED, syscall.EPIPE,
		syscall.EHOSTUNREACH, syscall.EHOSTDOWN, syscall.ENETUNREACH, syscall.ENETDOWN, syscall.ENETRESET} {
		if errors.Is(err, e) {
			return true
		}
	}
	return false
}
