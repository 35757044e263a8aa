/*
 * stdout, stderr and logs of a process: sized files that grow.
 *
 * Output is asked for in pages of 256 KiB that are kept for a second, a few for the whole sandbox: `cat logs` is not one
 * request for each 4 KiB. What the kernel asks for next is in the page; what has grown since is asked for anew.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "cleanup.h"
#include "processes.h"

enum { PAGE_SIZE = 256 << 10, PAGES_KEPT = 8, PAGE_FRESH_MS = 1000 };

struct process_page {
	struct process_page *next;
	char *id;
	enum spool_view view;
	uint64_t off;
	int64_t asked_ms;
	struct buf data;
};

static void page_free(struct process_page *page)
{
	buf_release(&page->data);
	free(page->id);
	free(page);
}

void process_pages_drop(struct process_set *set, const char *id)
{
	struct process_page *gone = NULL;

	pthread_mutex_lock(&set->lock);
	for (struct process_page **at = &set->pages; *at;) {
		struct process_page *page = *at;
		if (id && strcmp(page->id, id) != 0) {
			at = &page->next;
			continue;
		}
		*at = page->next;
		page->next = gone;
		gone = page;
	}
	pthread_mutex_unlock(&set->lock);
	while (gone) {
		struct process_page *next = gone->next;
		page_free(gone);
		gone = next;
	}
}

/* Copies what a kept page has at off; 0: none has it. */
static size_t pages_read(struct process *p, enum spool_view view, void *to, size_t n, uint64_t off)
{
	int64_t oldest = call_now_ms() - PAGE_FRESH_MS;
	AUTO_UNLOCK(&p->set->lock);

	for (struct process_page *page = p->set->pages; page; page = page->next) {
		if (page->view != view || page->asked_ms < oldest || strcmp(page->id, p->id) != 0 ||
			off < page->off || off - page->off >= page->data.size)
			continue;
		size_t at = (size_t)(off - page->off), left = page->data.size - at;
		if (n > left)
			n = left;
		memcpy(to, page->data.data + at, n);
		return n;
	}
	return 0;
}

/* Takes data. */
static void pages_keep(
	struct process *p, enum spool_view view, uint64_t off, int64_t asked, struct buf *data)
{
	struct process_page *page = calloc(1, sizeof(*page)), *old = NULL;
	unsigned count = 0;

	if (!page || !(page->id = strdup(p->id))) { /* then it is asked for again */
		free(page);
		return;
	}
	page->view = view;
	page->off = off;
	page->asked_ms = asked;
	page->data = *data;
	*data = (struct buf)BUF_INIT;
	pthread_mutex_lock(&p->set->lock);
	page->next = p->set->pages;
	p->set->pages = page;
	for (struct process_page **at = &p->set->pages; *at; at = &(*at)->next) {
		if (++count > PAGES_KEPT) {
			old = steal(*at);
			break;
		}
	}
	pthread_mutex_unlock(&p->set->lock);
	if (old)
		page_free(old); /* always the last of the list */
}

static int output_size(
	const struct ctl_ref *ref, struct call *c, enum spool_view view, uint64_t *size)
{
	AUTO_PROCESS_INFO info = {0};
	int err = process_look(ref, c, ref->object, &info);

	*size = info.size[view];
	return err == -ENOENT ? 0 : err;
}

/* Why could it not be read at off? Bytes that are no longer kept are said so. */
static int output_failed(
	const struct ctl_ref *ref, struct call *c, enum spool_view view, uint64_t off, int err)
{
	AUTO_PROCESS_INFO info = {0};
	struct call other; /* the first failure has its fault already */

	if (err == -EINTR || err == -ETIMEDOUT || err == -EHOSTUNREACH)
		return err;
	call_init(&other, 0);
	int look = process_look(ref, &other, ref->object, &info);
	call_destroy(&other);
	if (look || off >= info.first[view])
		return err;
	fault_clear(&c->fault);
	return call_fault(c, ESPIPE, NULL,
		"the first %llu bytes are no longer kept (-o output-max=); read on from there",
		(unsigned long long)info.first[view]);
}

static ssize_t output_pread(const struct ctl_ref *ref, struct call *c, enum spool_view view,
	void *to, size_t n, uint64_t off)
{
	struct process *p = ref->object;
	AUTO_BUF data = BUF_INIT;
	int64_t asked = call_now_ms();
	size_t got = pages_read(p, view, to, n, off);

	if (got > 0)
		return (ssize_t)got;
	if (!sandbox_has_server(ref->sandbox))
		return 0;
	int err = process_read(ref->sandbox, c, p->id, view, off, n > PAGE_SIZE ? n : PAGE_SIZE, &data);
	if (err == -ENOENT) { /* a draft, or gone */
		fault_clear(&c->fault);
		return 0;
	}
	if (err)
		return output_failed(ref, c, view, off, err);
	got = n < data.size ? n : data.size;
	if (got > 0)
		memcpy(to, data.data, got);
	if (data.size > got)
		pages_keep(p, view, off, asked, &data);
	return (ssize_t)got;
}

#define SIZED_VIEW(name, view)                                                                     \
	int process_##name##_size(const struct ctl_ref *ref, struct call *c, uint64_t *size)           \
	{                                                                                              \
		return output_size(ref, c, view, size);                                                    \
	}                                                                                              \
	ssize_t process_##name##_pread(                                                                \
		const struct ctl_ref *ref, struct call *c, void *p, size_t n, uint64_t off)                \
	{                                                                                              \
		return output_pread(ref, c, view, p, n, off);                                              \
	}
SIZED_VIEW(stdout, SPOOL_STDOUT)
SIZED_VIEW(stderr, SPOOL_STDERR)
SIZED_VIEW(logs, SPOOL_BOTH)
