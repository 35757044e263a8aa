/* What directories get at the end of an archive; see tar_later.h. */
#include "tar_later.h"

#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "cleanup.h"
#include "text.h"

enum { PENDING_MAX = 64 << 10 };

/* Follows the bytes that the path before had after what both have in common. */
struct record {
	int64_t sec;
	int64_t nsec;
	uint32_t mode;
	uint32_t common;
	uint32_t more;
};

void later_init(struct later *l, int dir)
{
	*l = (struct later){.dir = dir, .fd = -1};
}

void later_release(struct later *l)
{
	if (l->fd >= 0)
		close(l->fd);
	buf_release(&l->pending);
	buf_release(&l->path);
}

static int open_file(int dir)
{
	int fd = openat(dir, ".", O_TMPFILE | O_RDWR | O_CLOEXEC, 0600);
	if (fd >= 0 || (errno != EOPNOTSUPP && errno != EISDIR && errno != EINVAL && errno != ENOENT))
		return fd < 0 ? -errno : fd;
	char letters[13];
	AUTO_BUF name = BUF_INIT;
	text_random(letters, 12);
	buf_printf(&name, ".sandboxd-%s", letters);
	if (buf_error(&name))
		return -ENOMEM;
	fd = openat(dir, name.data, O_RDWR | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600);
	if (fd < 0)
		return -errno;
	unlinkat(dir, name.data, 0);
	return fd;
}

static int spill(struct later *l)
{
	if (l->fd < 0)
		l->fd = open_file(l->dir);
	if (l->fd < 0)
		return l->fd;
	for (size_t at = 0; at < l->pending.size;) {
		ssize_t n = pwrite(l->fd, l->pending.data + at, l->pending.size - at, l->size);
		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			return n < 0 ? -errno : -EIO;
		at += (size_t)n;
		l->size += n;
	}
	buf_clear(&l->pending);
	return 0;
}

int later_push(struct later *l, const char *path, mode_t mode, struct timespec time)
{
	const char *before = l->path.data ? l->path.data : "";
	size_t common = 0;
	while (path[common] && path[common] == before[common])
		common++;
	size_t more = strlen(before + common);
	struct record r = {.sec = time.tv_sec,
		.nsec = time.tv_nsec,
		.mode = mode,
		.common = (uint32_t)common,
		.more = (uint32_t)more};
	buf_add(&l->pending, before + common, more);
	buf_add(&l->pending, &r, sizeof r);
	l->path.size = common;
	buf_str(&l->path, path + common);
	if (buf_error(&l->pending) || buf_error(&l->path))
		return -ENOMEM;
	return l->pending.size < PENDING_MAX ? 0 : spill(l);
}

/* Takes the last n bytes of all. */
static int take(struct later *l, void *p, size_t n)
{
	if (!l->pending.size && l->size) {
		size_t want = l->size < PENDING_MAX ? (size_t)l->size : PENDING_MAX;
		char *to = buf_reserve(&l->pending, want);
		ssize_t got = to ? pread(l->fd, to, want, l->size - (off_t)want) : -1;
		if (got != (ssize_t)want)
			return !to ? -ENOMEM : got < 0 ? -errno : -EIO;
		l->pending.size = want;
		l->size -= (off_t)want;
	}
	if (n > l->pending.size) {
		/* It lies across: the end of it here, the rest there. */
		size_t here = l->pending.size;
		if ((off_t)(n - here) > l->size)
			return -EIO;
		memcpy((char *)p + (n - here), l->pending.data, here);
		buf_clear(&l->pending);
		return take(l, p, n - here);
	}
	l->pending.size -= n;
	memcpy(p, l->pending.data + l->pending.size, n);
	return 0;
}

int later_pop(struct later *l, struct buf *path, mode_t *mode, struct timespec *time)
{
	struct record r = {0};
	if (!l->pending.size && !l->size)
		return 0;
	int err = take(l, &r, sizeof r);
	if (err)
		return err;
	buf_clear(path);
	buf_add(path, l->path.data, l->path.size + 1);
	*mode = r.mode;
	*time = (struct timespec){.tv_sec = r.sec, .tv_nsec = r.nsec};
	l->path.size = r.common;
	char *to = buf_reserve(&l->path, r.more + 1);
	if (!to || buf_error(path))
		return -ENOMEM;
	err = take(l, to, r.more);
	to[r.more] = '\0';
	l->path.size += r.more;
	return err ? err : 1;
}
