package client

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/pgtandem/pgtandem/proxyd/api"
)

// Watch follows the daemon: fn is called with the full state first, then with
// every change of state (the latest only, they coalesce) and every event in
// order, from one goroutine. With since > 0 the events after it come again, so
// a reader that remembers the last Event.Seq misses none; with 0 they begin
// after the first state.
//
// It returns fn's error as it is, ctx's error when ctx has ended, and an error
// that wraps ErrUnreachable when the stream has ended or has been silent for
// several heartbeats. It never reconnects by itself.
func (c *Client) Watch(ctx context.Context, since uint64, fn func(api.Message) error) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	alarm := time.AfterFunc(c.silence, func() { cancel(errSilent) })
	defer alarm.Stop()

	path := api.PathEvents
	if since > 0 {
		path += "?since=" + strconv.FormatUint(since, 10)
	}
	res, err := c.do(ctx, http.MethodGet, path, nil)
	if err != nil {
		return c.failed(ctx, err, "")
	}
	defer res.Body.Close()
	if res.StatusCode/100 != 2 {
		return refusal(res)
	}
	r := bufio.NewReader(res.Body)
	for {
		data, err := readItem(r, func() { alarm.Reset(c.silence) })
		if err != nil {
			return c.failed(ctx, err, "")
		}
		var m api.Message
		if err := json.Unmarshal(data, &m); err != nil {
			return fmt.Errorf("read the event stream: %w", err)
		}
		alarm.Stop() // the time that fn takes is not the daemon's silence
		if err := fn(m); err != nil {
			return err
		}
		alarm.Reset(c.silence)
	}
}

// readItem reads one item of a text/event-stream and gives its data (WHATWG
// HTML, 9.2.6). alive is called with each line, comments included.
func readItem(r *bufio.Reader, alive func()) ([]byte, error) {
	var data []string
	for {
		line, err := r.ReadString('\n')
		if err == io.EOF {
			return nil, fmt.Errorf("it ended the stream: %w", io.EOF)
		}
		if err != nil {
			return nil, err
		}
		alive()
		line = strings.TrimRight(line, "\r\n")
		if line == "" {
			if data != nil {
				return []byte(strings.Join(data, "\n")), nil
			}
			continue
		}
		if d, ok := strings.CutPrefix(line, "data:"); ok {
			data = append(data, strings.TrimPrefix(d, " "))
		}
	}
}
