"""A snapshot of a daemon as telemetry publishes it, with one stream that was measured and one that was not."""

from typing import Any

STAGE = {"p50_ms": 1.25, "p99_ms": 9.5, "mean_ms": 2.0, "count": 40}
SNAPSHOT: dict[str, Any] = {
    "t_ns": 5_000_000_000,
    "state": "ready",
    "uptime_s": 12.5,
    "clients": 2,
    "max_streams": 16,
    "roles": {
        "gateway": {"alive": True, "age_s": 0.0, "rss_bytes": 40 << 20},
        "speaker": {"alive": False, "age_s": None, "rss_bytes": None, "device": None, "why_not": "no device"},
    },
    "voices": {
        "twins": {
            "ready": True, "default": False, "open": 3, "max_streams": 8, "streams": 2, "busy": 0.5, "late": 0.0, "level": 0,
            "engines": {
                "twins/0": {"ready": True, "device": "cuda:0", "open": 2, "max_streams": 8, "busy": 0.5, "level": 0},
                "twins/1": {"ready": False, "device": None, "open": 1, "max_streams": None},
            },
        },
        "glow": {
            "ready": True, "default": True, "open": 2, "max_streams": 9, "streams": 1, "busy": 0.25, "stolen": 0.5,
            "batches_per_s": 21.5, "audio_per_s": 1.0, "late": 0.0, "level": 0, "degraded": None,
            "capacity": {
                "streams": 9, "measured": True, "share": 0.7, "chunk_ms": 46.44, "alone_ms": 7.5, "round_ms": 31.0
            },
            "engines": {"glow": {"ready": True, "device": "cpu", "open": 2, "max_streams": 9, "level": 0}},
        },
        "old": {"ready": True, "default": False, "streams": 0, "busy": 0.0, "batches_per_s": 0.0, "audio_per_s": 0.0},
    },
    "streams": {
        "talk": {
            "client": "tts", "state": "playing", "voice": "glow", "engine": "glow", "sinks": ["device", "socket"],
            "generation": 2,
            "frames_in": 64, "queue_frames": 3, "credit_frames": 120, "made_samples": 16000, "delivered_samples": 15000,
            "ttfa_ms": 61.4, "rtf": 0.31, "batch": 1.5,
            "stages": {"client": STAGE, "network": STAGE, "device": None, "total": {"mean_ms": 4.0}},
            "underruns": {"client": 1, "engine": 0, "device": 2, "missing_samples": 99}, "behind_ms": 240.4, "skipped_ms": 31.0,
            "latency_ms": 187.3, "drift_ppm": 41.7,
        },
        "new": {
            "client": "tts", "state": "idle", "voice": "glow", "sinks": ["null"], "generation": 0, "frames_in": 0,
            "ttfa_ms": None, "rtf": None, "stages": {"client": None, "total": None}, "underruns": None,
        },
    },
}  # fmt: skip
