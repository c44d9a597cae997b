package cli

import (
	"fmt"
	"io"
	"runtime"
	"runtime/debug"
)

type versionCmd struct{ format }

// release is the version of this source, or the last one before it: the newest heading of CHANGELOG.md.
const release = "0.1.0"

// build is the release, with the data that the Go toolchain recorded about this binary.
type build struct {
	Version  string `json:"version"`
	Commit   string `json:"commit,omitempty"`
	Time     string `json:"commit_time,omitempty"`
	Modified bool   `json:"modified"` // built from a tree with uncommitted changes
	Go       string `json:"go"`
	Platform string `json:"platform"`
}

// Run implements the command.
func (c *versionCmd) Run(s *Streams) error {
	b := readBuild()
	return c.show(s, b, func(w io.Writer) {
		row(w, "sendgate", b.Version)
		if b.Commit != "" {
			row(w, "commit", fmt.Sprintf("%s of %s%s", b.Commit, orDash(b.Time), map[bool]string{true: ", with changes"}[b.Modified]))
		}
		row(w, "go", b.Go+" "+b.Platform)
	})
}

func readBuild() build {
	b := build{Version: release, Go: runtime.Version(), Platform: runtime.GOOS + "/" + runtime.GOARCH}
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return b
	}
	for _, s := range info.Settings {
		switch s.Key {
		case "vcs.revision":
			b.Commit = s.Value
		case "vcs.time":
			b.Time = s.Value
		case "vcs.modified":
			b.Modified = s.Value == "true"
		}
	}
	return b
}
