package emulator_test

import (
	"io"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/sendgate/sendgate/internal/emulator"
	"github.com/sendgate/sendgate/internal/emulator/catalog"
)

func TestNothingIsSmuggledBehindTwoLengths(t *testing.T) {
	t.Parallel()
	emu, err := catalog.New(emulator.Options{})
	if err == nil {
		err = emu.Start(t.Context())
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = emu.Stop(t.Context()) })
	addr := strings.TrimPrefix(emu.URL(), "http://")
	for _, route := range []string{"GET /_ledger", "PUT /_faults", "DELETE /_ledger", "GET /_hooks", "PUT /_hooks", "POST /sendgrid/v3/mail/send", "GET /nothing"} {
		conn, err := (&net.Dialer{}).DialContext(t.Context(), "tcp", addr)
		if err != nil {
			t.Fatal(err)
		}
		_ = conn.SetDeadline(time.Now().Add(20 * time.Second))
		_, _ = io.WriteString(conn, route+" HTTP/1.1\r\nHost: "+addr+"\r\nContent-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\nGET / HTTP/1.1\r\nHost: "+addr+"\r\n\r\n")
		got, err := io.ReadAll(conn)
		if n := strings.Count(string(got), "HTTP/1.1 "); n != 1 || err != nil {
			t.Errorf("%s: %d answers, %v; want one, and that the connection is closed", route, n, err)
		}
		_ = conn.Close()
	}
}
