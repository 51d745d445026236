package main

import (
	"bytes"
	"context"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5/pgproto3"
)

// carried is one transfer.
type carried struct {
	mbs    float64 // MB of 1,000,000 bytes for each second
	cpuMS  float64 // the proxy's own processor time for each GB, in milliseconds
	peakMB float64 // the most memory that the proxy had meanwhile
	grewMB float64 // of it, how much more than before
}

func (c carried) String() string {
	return fmt.Sprintf("%6.0f MB/s %5.0f ms/GB, peak %.0f MB", c.mbs, c.cpuMS, c.peakMB)
}

// transfer carries data through a target and says how much.
type transfer struct {
	name string
	run  func(*stream) (int64, error)
}

const (
	megabyte = 1000 * 1000
	line     = 1000 // bytes of a row that is copied
)

// measureCopy is what COPY and large values pass through at, out of the server
// and into it, and the memory that they take. The rows come from no table and
// go to none, so that no disk is measured.
func measureCopy(ctx context.Context, b *bench) error {
	targets, err := b.open(ctx, setup{rivals: []string{pgbouncer, haproxy}})
	if err != nil {
		return err
	}
	transfers, err := b.transfers()
	if err != nil {
		return err
	}
	for _, transfer := range transfers {
		all, err := rounds(ctx, b, transfer.name, targets, func(ctx context.Context, t *target) (carried, error) {
			return b.carry(ctx, t, transfer)
		})
		if err != nil {
			return err
		}
		fmt.Printf("%s, %d MB, median of %d interleaved rounds\n\n%s\n", transfer.name, b.megabytes, b.options.rounds, carriedTable(all))
	}
	return nil
}

func carriedTable(all []result[carried]) string {
	mbs := func(c carried) float64 { return c.mbs }
	ofHAProxy := column[carried]{"of haproxy", func(r, _ result[carried]) string {
		for _, other := range all {
			if other.target.name == haproxy && other.median(mbs) > 0 {
				return fmt.Sprintf("%.0f %%", 100*r.median(mbs)/other.median(mbs))
			}
		}
		return "-"
	}}
	return table(all, figure("MB/s", "%.0f", mbs), share("of direct", mbs), ofHAProxy,
		proxies("proxy CPU ms/GB", "%.0f", func(c carried) float64 { return c.cpuMS }),
		proxies("peak MB", "%.1f", func(c carried) float64 { return c.peakMB }),
		proxies("grew MB", "%.1f", func(c carried) float64 { return c.grewMB }))
}

func (b *bench) carry(ctx context.Context, t *target, transfer transfer) (c carried, err error) {
	s, err := b.lab.stream(ctx, t)
	if err != nil {
		return c, err
	}
	defer s.close()
	if err := forgetPeak(t.pid); err != nil {
		return c, err
	}
	before, err := memoryKB(t.pid, resident)
	if err != nil {
		return c, err
	}
	ticks, err := cpuTicks(t.pid)
	if err != nil {
		return c, err
	}
	began := time.Now()
	n, err := transfer.run(s)
	if err != nil {
		return c, err
	}
	took := time.Since(began)
	if want := int64(b.megabytes) * megabyte * 9 / 10; n < want {
		return c, fmt.Errorf("%d bytes have come, and at least %d were asked for", n, want)
	}
	after, err := cpuTicks(t.pid)
	if err != nil {
		return c, err
	}
	most, err := memoryKB(t.pid, peak)
	if err != nil {
		return c, err
	}
	c.mbs = float64(n) / megabyte / took.Seconds()
	c.cpuMS = float64(after-ticks) * microsPerTick / 1000 / (float64(n) / 1e9)
	c.peakMB, c.grewMB = most/1024, max(0, most-before)/1024
	return c, nil
}

func (b *bench) transfers() ([]transfer, error) {
	total := int64(b.megabytes) * megabyte
	values := max(1, b.megabytes/b.valueMB)
	copyIn, err := copyingIn(total)
	if err != nil {
		return nil, err
	}
	valueIn, err := valuesIn(b.valueMB*megabyte, values)
	if err != nil {
		return nil, err
	}
	return []transfer{
		{"COPY out", query(fmt.Sprintf("COPY (SELECT repeat('x', %d) FROM generate_series(1, %d)) TO STDOUT", line-1, total/line))},
		{"COPY in", copyIn},
		{fmt.Sprintf("values of %d MB out", b.valueMB), query(fmt.Sprintf("SELECT repeat('x', %d) FROM generate_series(1, %d)", b.valueMB*megabyte, values))},
		{fmt.Sprintf("values of %d MB in", b.valueMB), valueIn},
	}, nil
}

// query counts what a statement gives.
func query(sql string) func(*stream) (int64, error) {
	return func(s *stream) (int64, error) {
		message, err := encoded(&pgproto3.Query{String: sql})
		if err != nil {
			return 0, err
		}
		if err := s.send(message); err != nil {
			return 0, err
		}
		return s.until(readyForQuery)
	}
}

// copyingIn gives rows to COPY, which takes none of them: it reads each and
// keeps those for which false is true.
func copyingIn(total int64) (func(*stream) (int64, error), error) {
	const messages, lines = 16, 64 // of each piece that is sent; 64 kB to a message, as libpq has it
	rows := bytes.Repeat(append(bytes.Repeat([]byte("x"), line-1), '\n'), lines)
	var piece []byte
	var err error
	for range messages {
		if piece, err = (&pgproto3.CopyData{Data: rows}).Encode(piece); err != nil {
			return nil, fmt.Errorf("write rows to be copied: %w", err)
		}
	}
	begin, err := encoded(&pgproto3.Query{String: "CREATE TEMPORARY TABLE bench_copy (line text) ON COMMIT DROP; COPY bench_copy FROM STDIN WHERE false"})
	if err != nil {
		return nil, err
	}
	end, err := encoded(&pgproto3.CopyDone{})
	if err != nil {
		return nil, err
	}
	return func(s *stream) (sent int64, err error) {
		if err := s.send(begin); err != nil {
			return 0, err
		}
		if _, err := s.until(copyInResponse); err != nil {
			return 0, err
		}
		for ; sent < total; sent += messages * lines * line {
			if err := s.send(piece); err != nil {
				return sent, err
			}
		}
		if err := s.send(end); err != nil {
			return sent, err
		}
		_, err = s.until(readyForQuery)
		return sent, err
	}, nil
}

// valuesIn gives a large value as a parameter, several times.
func valuesIn(size, times int) (func(*stream) (int64, error), error) {
	all, err := encoded(&pgproto3.Parse{Query: "SELECT length($1::text)"}, &pgproto3.Bind{Parameters: [][]byte{bytes.Repeat([]byte("x"), size)}},
		&pgproto3.Execute{}, &pgproto3.Sync{})
	if err != nil {
		return nil, err
	}
	return func(s *stream) (sent int64, err error) {
		for range times {
			if err := s.send(all); err != nil {
				return sent, err
			}
			if _, err := s.until(readyForQuery); err != nil {
				return sent, err
			}
			sent += int64(size)
		}
		return sent, nil
	}, nil
}
