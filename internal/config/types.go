package config

import (
	"fmt"
	"math"
	"net/netip"
	"strconv"
	"strings"
	"time"

	"github.com/sendgate/sendgate/internal/record"
)

// Bytes is a size. It is read as a plain number of bytes or with a unit: 65536, 64KiB, 30MiB, 1GiB.
type Bytes int64

// UnmarshalText implements encoding.TextUnmarshaler.
func (b *Bytes) UnmarshalText(text []byte) error {
	number, factor := strings.TrimSpace(string(text)), int64(1)
	for unit, f := range map[string]int64{"KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30} {
		if n, ok := strings.CutSuffix(number, unit); ok {
			number, factor = strings.TrimSpace(n), f
			break
		}
	}
	n, err := strconv.ParseInt(number, 10, 64)
	if err != nil || n < 0 || n > math.MaxInt64/factor {
		return fmt.Errorf("%q is not a size: want bytes, or a number with KiB, MiB or GiB", text)
	}
	*b = Bytes(n * factor)
	return nil
}

// String returns the size in the largest unit that divides it.
func (b Bytes) String() string {
	for _, u := range []struct {
		name string
		size Bytes
	}{{"GiB", 1 << 30}, {"MiB", 1 << 20}, {"KiB", 1 << 10}} {
		if b != 0 && b%u.size == 0 {
			return fmt.Sprintf("%d%s", b/u.size, u.name)
		}
	}
	return strconv.FormatInt(int64(b), 10)
}

// Networks is a list of address ranges. A bare address is a range of one.
type Networks []netip.Prefix

// UnmarshalText implements encoding.TextUnmarshaler.
func (n *Networks) UnmarshalText(text []byte) error {
	var list Networks
	for part := range strings.SplitSeq(string(text), ",") {
		if part = strings.TrimSpace(part); part == "" {
			continue
		}
		prefix, err := record.ParseNetwork(part)
		if err != nil {
			return fmt.Errorf("%q %w", part, err)
		}
		list = append(list, prefix)
	}
	if len(list) == 0 && len(text) > 0 { // an empty list would allow all, e.g. as ADMIN_NETWORKS
		return fmt.Errorf("%q names no address range", text)
	}
	*n = list
	return nil
}

// parseDuration reads Go durations ("90s", "1h30m") and whole days ("90d").
func parseDuration(s string) (any, error) { return readDuration(s) }

func readDuration(s string) (time.Duration, error) {
	if days, ok := strings.CutSuffix(s, "d"); ok {
		n, err := strconv.Atoi(days)
		if err == nil && n >= 0 && n <= 36500 {
			return time.Duration(n) * 24 * time.Hour, nil
		}
	}
	d, err := time.ParseDuration(s)
	if err != nil {
		return 0, fmt.Errorf("%q is not a duration: want one such as 15s, 30m, 72h or 90d", s)
	}
	return d, nil
}

// Durations is a comma-separated list of durations.
type Durations []time.Duration

// UnmarshalText implements encoding.TextUnmarshaler.
func (d *Durations) UnmarshalText(text []byte) error {
	var list Durations
	for part := range strings.SplitSeq(string(text), ",") {
		v, err := readDuration(strings.TrimSpace(part))
		if err != nil {
			return err
		}
		list = append(list, v)
	}
	*d = list
	return nil
}

// Target is a range of addresses at one port.
type Target struct {
	Prefix netip.Prefix
	Port   uint16
}

// Targets is a comma-separated list of CIDR:port.
type Targets []Target

// UnmarshalText implements encoding.TextUnmarshaler.
func (t *Targets) UnmarshalText(text []byte) error {
	var list Targets
	for part := range strings.SplitSeq(string(text), ",") {
		if part = strings.TrimSpace(part); part == "" {
			continue
		}
		at := strings.LastIndexByte(part, ':')
		if at < 0 {
			return fmt.Errorf("%q is not CIDR:port, such as 10.0.0.0/8:8443", part)
		}
		prefix, err := netip.ParsePrefix(strings.Trim(part[:at], "[]"))
		port, portErr := strconv.ParseUint(part[at+1:], 10, 16)
		if err != nil || portErr != nil || port == 0 {
			return fmt.Errorf("%q is not CIDR:port, such as 10.0.0.0/8:8443", part)
		}
		list = append(list, Target{prefix.Masked(), uint16(port)})
	}
	*t = list
	return nil
}
