package main

import (
	"bufio"
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgproto3"
)

// stream is a connection on which the answers are counted and thrown away. A
// driver would spend more on them than the proxies that are measured.
type stream struct {
	conn   net.Conn
	from   *bufio.Reader
	forget func() bool // of the context
}

// streamLimit bounds a transfer: one that hangs is to be told.
const streamLimit = 10 * time.Minute

func (l *lab) stream(ctx context.Context, t *target) (*stream, error) {
	c, err := pgconn.Connect(ctx, l.url(t))
	if err != nil {
		return nil, err
	}
	h, err := c.Hijack()
	if err != nil {
		return nil, fmt.Errorf("take the connection over: %w", err)
	}
	if err := h.Conn.SetDeadline(time.Now().Add(streamLimit)); err != nil {
		return nil, fmt.Errorf("bound the transfer: %w", err)
	}
	return &stream{
		conn: h.Conn, from: bufio.NewReaderSize(h.Conn, 256<<10),
		forget: context.AfterFunc(ctx, func() { _ = h.Conn.SetDeadline(time.Now()) }),
	}, nil
}

func (s *stream) close() {
	s.forget()
	_ = s.conn.Close() // what was to be known is known
}

func (s *stream) send(message []byte) error {
	if _, err := s.conn.Write(message); err != nil {
		return fmt.Errorf("send: %w", err)
	}
	return nil
}

// Messages of the server, by the bytes of the protocol.
const (
	copyInResponse = 'G'
	copyData       = 'd'
	dataRow        = 'D'
	errorResponse  = 'E'
	readyForQuery  = 'Z'
)

// until reads up to a message and gives the size of all data on the way to it.
func (s *stream) until(last byte) (data int64, err error) {
	for {
		var head [5]byte
		if _, err := io.ReadFull(s.from, head[:]); err != nil {
			return data, fmt.Errorf("receive: %w", err)
		}
		n := int(binary.BigEndian.Uint32(head[1:])) - 4
		if head[0] == errorResponse {
			return data, s.refusal(n)
		}
		if _, err := s.from.Discard(n); err != nil {
			return data, fmt.Errorf("receive: %w", err)
		}
		switch head[0] {
		case last:
			return data, nil
		case copyData, dataRow:
			data += int64(n)
		}
	}
}

func (s *stream) refusal(n int) error {
	body := make([]byte, n)
	if _, err := io.ReadFull(s.from, body); err != nil {
		return fmt.Errorf("receive an error: %w", err)
	}
	var e pgproto3.ErrorResponse
	if err := e.Decode(body); err != nil {
		return fmt.Errorf("read an error: %w", err)
	}
	return pgconn.ErrorResponseToPgError(&e)
}

// encoded writes messages as one piece.
func encoded(messages ...pgproto3.FrontendMessage) (all []byte, err error) {
	for _, m := range messages {
		if all, err = m.Encode(all); err != nil {
			return nil, fmt.Errorf("write a message: %w", err)
		}
	}
	return all, nil
}
