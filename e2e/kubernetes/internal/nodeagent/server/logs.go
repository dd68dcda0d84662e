package server

import (
	"bytes"
	"errors"
	"io"
	"net/http"
	"os"
	"strconv"
	"time"
)

// logs serves the output of containers with the query parameters of the
// kubelet: follow, previous, tailLines, limitBytes. Lines carry no times, so
// sinceSeconds, sinceTime and timestamps are ignored.
type logs struct{ source Source }

func (l logs) ServeHTTP(writer http.ResponseWriter, request *http.Request) {
	query := request.URL.Query()
	find := func() (string, error) {
		return l.source.LogFile(request.PathValue("namespace"), request.PathValue("pod"), request.PathValue("container"), query.Get("previous") == "true")
	}
	path, err := find()
	if err != nil {
		http.Error(writer, err.Error(), http.StatusNotFound)
		return
	}
	file, err := os.Open(path)
	if err != nil {
		http.Error(writer, "the container has no output yet", http.StatusNotFound)
		return
	}
	defer file.Close()
	if lines, err := strconv.Atoi(query.Get("tailLines")); err == nil {
		if err := seekTail(file, lines); err != nil {
			http.Error(writer, err.Error(), http.StatusInternalServerError)
			return
		}
	}
	var output io.Writer = flushed{writer}
	if limit, err := strconv.ParseInt(query.Get("limitBytes"), 10, 64); err == nil {
		output = &limited{output, limit}
	}
	if _, err := io.Copy(output, file); err != nil || query.Get("follow") != "true" {
		return
	}
	follow(request, file, path, find, output)
}

// follow copies what is added until the container runs again, is gone, or the
// client goes.
func follow(request *http.Request, file *os.File, path string, find func() (string, error), output io.Writer) {
	ticker := time.NewTicker(followEvery)
	defer ticker.Stop()
	for {
		select {
		case <-request.Context().Done():
			return
		case <-ticker.C:
		}
		current, gone := find()
		if _, err := io.Copy(output, file); err != nil || gone != nil || current != path {
			return
		}
	}
}

// seekTail moves to the beginning of the last lines of a file.
func seekTail(file io.ReadSeeker, lines int) error {
	end, err := file.Seek(0, io.SeekEnd)
	if err != nil || lines <= 0 {
		return err
	}
	block := make([]byte, tailBlock)
	position, last := end, true
	for position > 0 {
		size := min(position, tailBlock)
		position -= size
		if _, err := file.Seek(position, io.SeekStart); err != nil {
			return err
		}
		if _, err := io.ReadFull(file, block[:size]); err != nil {
			return err
		}
		for index := bytes.LastIndexByte(block[:size], '\n'); index >= 0; index = bytes.LastIndexByte(block[:index], '\n') {
			if position+int64(index) == end-1 && last {
				last = false
				continue
			}
			if lines--; lines == 0 {
				_, err := file.Seek(position+int64(index)+1, io.SeekStart)
				return err
			}
		}
	}
	_, err = file.Seek(0, io.SeekStart)
	return err
}

// flushed hands everything on at once.
type flushed struct{ http.ResponseWriter }

func (f flushed) Write(content []byte) (int, error) {
	count, err := f.ResponseWriter.Write(content)
	_ = http.NewResponseController(f.ResponseWriter).Flush()
	return count, err
}

// limited writes up to a number of octets and then fails.
type limited struct {
	io.Writer
	left int64
}

func (l *limited) Write(content []byte) (int, error) {
	whole := len(content)
	if int64(whole) > l.left {
		content = content[:l.left]
	}
	count, err := l.Writer.Write(content)
	l.left -= int64(count)
	if err == nil && count < whole {
		err = errLimit
	}
	return count, err
}

var errLimit = errors.New("the limit is reached")

const (
	followEvery = 100 * time.Millisecond
	tailBlock   = int64(32 << 10)
)
