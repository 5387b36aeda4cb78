def test_import():
    import multiprocessing

    import rsmp

    assert rsmp.current_process() is multiprocessing.current_process()
