"""A smoke test that needs nothing but an import."""


def test_import() -> None:
    import multiprocessing

    import rsmp

    assert rsmp.current_process() is multiprocessing.current_process()
