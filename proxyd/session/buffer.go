package session

import "sync"

const (
	bufferSize = 16 << 10
	bulkSize   = 64 << 10 // for a connection that has just filled the other kind
)

var (
	buffers     = sync.Pool{New: func() any { b := make([]byte, bufferSize); return &b }}
	bulkBuffers = sync.Pool{New: func() any { b := make([]byte, bulkSize); return &b }}
)

func takeBuffer(bulk bool) *[]byte {
	if bulk {
		return bulkBuffers.Get().(*[]byte)
	}
	return buffers.Get().(*[]byte)
}

// putBuffer gives a buffer back, unless it had to grow.
func putBuffer(b *[]byte) {
	switch len(*b) {
	case bufferSize:
		buffers.Put(b)
	case bulkSize:
		bulkBuffers.Put(b)
	}
}
