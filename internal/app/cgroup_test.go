package app

import (
	"math"
	"testing"
	"testing/fstest"
)

func TestMemoryOfGroupIsTheLeastAroundThisProcess(t *testing.T) {
	t.Parallel()
	const (
		v2 = "30 22 0:27 / /sys/fs/cgroup rw,relatime shared:9 - cgroup2 cgroup2 rw,nsdelegate\n"
		v1 = "34 30 0:31 / /sys/fs/cgroup/memory rw,relatime - cgroup cgroup rw,memory\n32 30 0:29 / /sys/fs/cgroup/cpu rw - cgroup cgroup rw,cpu,cpuacct\n"
		mb = "536870912\n"
	)
	for name, tc := range map[string]struct {
		groups, mounts string
		files          map[string]string
		want           int64
	}{
		"no groups":                 {"", "", nil, math.MaxInt64},
		"version 2, in a container": {"0::/\n", v2, map[string]string{"memory.max": mb}, 512 << 20},
		"version 2, no limit":       {"0::/\n", v2, map[string]string{"memory.max": "max\n"}, math.MaxInt64},
		"version 2, a unit of systemd": {
			"0::/system.slice/sendgate.service\n", v2,
			map[string]string{"system.slice/memory.max": "max\n", "system.slice/sendgate.service/memory.max": mb},
			512 << 20,
		},
		"version 2, its slice is smaller": {
			"0::/a.slice/sendgate.service\n", v2, map[string]string{"a.slice/memory.max": "268435456\n", "a.slice/sendgate.service/memory.max": mb}, 256 << 20,
		},
		"version 2, throttled earlier": {"0::/a\n", v2, map[string]string{"a/memory.max": mb, "a/memory.high": "402653184\n"}, 384 << 20},
		"version 2, a neighbour is smaller": {
			"0::/a\n", v2, map[string]string{"a/memory.max": mb, "b/memory.max": "1048576\n"}, 512 << 20,
		},
		"version 2, a group outside of the container": {
			"0::/../../kubepods/pod1/x\n", "30 22 0:27 /../../kubepods/pod1/x /sys/fs/cgroup ro - cgroup2 cgroup rw\n", map[string]string{"memory.max": mb}, 512 << 20,
		},
		"version 1, nested": {
			"4:memory:/a/b\n1:cpu,cpuacct:/c\n", v1,
			map[string]string{"memory/memory.limit_in_bytes": "9223372036854771712\n", "memory/a/memory.limit_in_bytes": mb, "memory/a/b/memory.limit_in_bytes": "9223372036854771712\n"},
			512 << 20,
		},
		"version 1, in a container that sees the host's path": {
			"4:memory:/docker/0123\n", "34 30 0:31 /docker/0123 /sys/fs/cgroup/memory ro - cgroup cgroup rw,memory\n",
			map[string]string{"memory/memory.limit_in_bytes": mb},
			512 << 20,
		},
		"both": {
			"4:memory:/a\n0::/\n", v1 + "40 30 0:37 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n",
			map[string]string{"memory/a/memory.limit_in_bytes": mb},
			512 << 20,
		},
		"garbage": {"4\n::\n", "x - cgroup2\n\n", map[string]string{"memory.max": mb}, math.MaxInt64},
	} {
		root := fstest.MapFS{
			"proc/self/cgroup": {Data: []byte(tc.groups)}, "proc/self/mountinfo": {Data: []byte(tc.mounts)},
		}
		for file, text := range tc.files {
			root["sys/fs/cgroup/"+file] = &fstest.MapFile{Data: []byte(text)}
		}
		if got := memoryOfGroup(root); got != tc.want {
			t.Errorf("%s: %d MiB, want %d", name, got>>20, tc.want>>20)
		}
	}
}
