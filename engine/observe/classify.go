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
func classify(err error) cluster.Reach {
	var pgErr *pgconn.PgError
	var netErr net.Error
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
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF), errors.Is(err, syscall.ECONNRESET),
		errors.Is(err, syscall.EPIPE), errors.Is(err, net.ErrClosed):
		return cluster.ReachBroken
	}
	return cluster.ReachBroken
}
