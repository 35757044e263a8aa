/*
 * See mount_table.h.
 *
 * A mount's program listens on a socket in the abstract name space that has the mount's device number as its name, and takes no
 * connection: the kernel completes them and says who listens. Such a name ends with its program, needs no directory that both
 * sides agree on, and can be squatted only by somebody whose uid then is not that of the mount.
 */
#include "mount_table.h"

#include <errno.h>
#include <poll.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/pidfd.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#include "buf.h"
#include "cleanup.h"

enum { LINKS_MAX = 16, BACKLOG = 4096, ANNOUNCE_TRIES = 250, ANNOUNCE_PAUSE_NS = 20000000 };

#ifndef SO_PEERPIDFD
#define SO_PEERPIDFD 77 /* Linux 6.5 */
#endif

static const char fs_type[] = "fuse.sandboxfs";

/* --- /proc/self/mountinfo --- */

/* Undoes \040 and its like in place. */
static void unescape(char *s)
{
	char *to = s;

	for (; *s; s++) {
		if (s[0] == '\\' && s[1] >= '0' && s[1] <= '3' && s[2] && s[3]) {
			*to++ = (char)((s[1] - '0') << 6 | (s[2] - '0') << 3 | (s[3] - '0'));
			s += 3;
		} else {
			*to++ = *s;
		}
	}
	*to = 0;
}

/* The fields of a line: ID PARENT DEVICE ROOT PLACE OPTIONS [TAG]... - TYPE SOURCE SUPER-OPTIONS. */
struct line {
	char *device, *place, *type, *source, *options;
};

static bool split_line(char *text, struct line *out)
{
	char *save = NULL, *field[6], *word;

	for (size_t i = 0; i < 6; i++)
		if (!(field[i] = strtok_r(i ? NULL : text, " \n", &save)))
			return false;
	while ((word = strtok_r(NULL, " \n", &save)) && strcmp(word, "-") != 0)
		;
	out->device = field[2];
	out->place = field[4];
	out->type = strtok_r(NULL, " \n", &save);
	out->source = strtok_r(NULL, " \n", &save);
	out->options = strtok_r(NULL, " \n", &save);
	if (!out->options)
		return false;
	unescape(out->place);
	return true;
}

bool mount_find(const char *path, struct mount_entry *out)
{
	FILE *f = fopen("/proc/self/mountinfo", "re");
	AUTO_FREE char *text = NULL;
	size_t size = 0;
	struct line l;
	bool ours = false;

	while (f && getline(&text, &size, f) > 0) {
		if (!split_line(text, &l) || strcmp(l.place, path) != 0)
			continue;
		const char *uid = strstr(l.options, "user_id="), *gid = strstr(l.options, "group_id=");
		*out = (struct mount_entry){.uid = uid ? (uid_t)strtoul(uid + 8, NULL, 10) : 0,
			.gid = gid ? (gid_t)strtoul(gid + 9, NULL, 10) : 0,
			.local = strncmp(l.source, "local:", 6) == 0};
		snprintf(out->device, sizeof out->device, "%s", l.device);
		ours = strcmp(l.type, fs_type) == 0;
	}
	if (f)
		fclose(f);
	return ours;
}

/* --- paths --- */

/* Absolute, without empty and `.` components; a `..` is left, as what it means only the disk knows. */
static char *lexical(const char *given)
{
	AUTO_BUF out = BUF_INIT, whole = BUF_INIT;
	AUTO_FREE char *here = *given == '/' ? NULL : getcwd(NULL, 0);
	char *save = NULL;

	if (*given != '/' && !here)
		return NULL;
	buf_printf(&whole, "%s/%s", here ? here : "", given);
	for (char *w = whole.data ? strtok_r(whole.data, "/", &save) : NULL; w;
		 w = strtok_r(NULL, "/", &save))
		if (strcmp(w, ".") != 0)
			buf_printf(&out, "/%s", w);
	if (!out.size)
		buf_char(&out, '/');
	return buf_steal(&out);
}

/* DIR/NAME with the real path of DIR, new; NULL where that cannot be told. */
static char *real_parent(const char *path)
{
	AUTO_FREE char *copy = strdup(path);
	AUTO_FREE char *dir = NULL;
	AUTO_BUF out = BUF_INIT;
	char *slash = copy ? strrchr(copy, '/') : NULL;

	if (!slash || !slash[1] || strcmp(slash + 1, "..") == 0)
		return NULL;
	*slash = 0;
	dir = realpath(*copy ? copy : "/", NULL);
	if (!dir)
		return NULL;
	buf_printf(&out, "%s/%s", dir[1] ? dir : "", slash + 1);
	return buf_steal(&out);
}

char *mount_resolve(const char *given)
{
	AUTO_FREE char *path = lexical(given);
	char target[4096];
	struct mount_entry e;

	/* readlink of a mount point asks its file system nothing, realpath does. */
	for (int links = 0; path && links < LINKS_MAX; links++) {
		if (mount_find(path, &e))
			return steal(path);
		AUTO_FREE char *real = real_parent(path);
		AUTO_BUF next = BUF_INIT;
		ssize_t n;

		if (!real)
			break;
		if (mount_find(real, &e))
			return steal(real);
		n = readlink(real, target, sizeof target - 1);
		if (n < 0 || n == (ssize_t)sizeof target - 1)
			break;
		target[n] = 0;
		if (*target != '/')
			buf_add(&next, real, (size_t)(strrchr(real, '/') + 1 - real));
		buf_str(&next, target);
		free(path);
		path = next.data ? lexical(next.data) : NULL;
	}
	return realpath(given, NULL);
}

/* --- whose it is --- */

static socklen_t name_of(const struct mount_entry *e, struct sockaddr_un *out)
{
	*out = (struct sockaddr_un){.sun_family = AF_UNIX};
	int n = snprintf(out->sun_path + 1, sizeof out->sun_path - 1, "sandboxfs-mount-%s", e->device);
	return (socklen_t)(offsetof(struct sockaddr_un, sun_path) + 1 + (size_t)n);
}

int mount_announce(const char *path, int *fd)
{
	struct mount_entry e;
	struct sockaddr_un name;

	if (!mount_find(path, &e))
		return -ENOENT;
	socklen_t size = name_of(&e, &name);
	AUTO_FD int s = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (s < 0)
		return -errno;
	/* The number was another mount's a moment ago, whose program has yet to see its end. */
	for (int tries = 0; bind(s, (struct sockaddr *)&name, size) < 0; tries++) {
		if (errno != EADDRINUSE || tries == ANNOUNCE_TRIES)
			return -errno;
		nanosleep(&(struct timespec){0, ANNOUNCE_PAUSE_NS}, NULL); /* nobody tells */
	}
	if (listen(s, BACKLOG) < 0)
		return -errno;
	*fd = steal_fd(&s);
	return 0;
}

/* Who has called listen() there; -1: it has ended, or cannot be told. */
static int listener(int s, pid_t pid)
{
	int program = -1;
	socklen_t size = sizeof program;

	if (getsockopt(s, SOL_SOCKET, SO_PEERPIDFD, &program, &size) == 0)
		return program;
	/* An older kernel has the number alone. Another's by now, if it has ended and its socket lives on in a child. */
	return errno == ENOPROTOOPT ? pidfd_open(pid, 0) : -1;
}

int mount_program(const struct mount_entry *e, pid_t *pid)
{
	struct sockaddr_un name;
	socklen_t size = name_of(e, &name);
	struct ucred who;
	socklen_t who_size = sizeof who;
	AUTO_FD int s = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	AUTO_FD int program = -1;

	if (s < 0 || connect(s, (struct sockaddr *)&name, size) < 0 ||
		getsockopt(s, SOL_SOCKET, SO_PEERCRED, &who, &who_size) < 0 || who.pid <= 0 ||
		who.uid != e->uid)
		return -1;
	program = listener(s, who.pid);
	/* Does it listen still, and live? */
	struct pollfd p[2] = {{.fd = s}, {.fd = program, .events = POLLIN}};
	if (program < 0 || poll(p, 2, 0) != 0)
		return -1;
	*pid = who.pid;
	return steal_fd(&program);
}
