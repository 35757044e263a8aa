/*
 * The program's log: the newest 1000 lines in memory (ctl/log), and stderr in the foreground or syslog behind.
 * Never command text, environment values or tokens. Thread-safe. With node.c's list the only state at file scope.
 */
#ifndef SBX_LOG_H
#define SBX_LOG_H

#include <stdbool.h>

#include "buf.h"

enum log_level { LOG_LEVEL_ERROR, LOG_LEVEL_INFO, LOG_LEVEL_DEBUG };

void log_set_level(enum log_level l);
enum log_level log_get_level(void);
/* Where lines go besides the memory; stderr may be told errors alone: what else there is to say is no user's business at a prompt. */
enum log_to { LOG_TO_SYSLOG, LOG_TO_STDERR, LOG_TO_STDERR_ERRORS };
void log_set_to(enum log_to to);
void log_error(const char *fmt, ...) __attribute__((format(printf, 1, 2)));
void log_info(const char *fmt, ...) __attribute__((format(printf, 1, 2)));
void log_debug(const char *fmt, ...) __attribute__((format(printf, 1, 2)));
/* `TIME LEVEL TEXT` lines, oldest first. */
void log_describe(struct buf *out);

#endif
